"""Settings as flags of a command line and as fields of a form: their names and types."""

from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from nanogpt.config.variants import GROUPS

# Groups of a command's flat flags. If two groups share a setting, the flag sets the first group's:
# `--seed` is train's in `train` and sample's in `sample`, as in nanoGPT.
FLAT = {
    "prepare": ("dataset", "corpus"),
    "train": ("model", "train"),
    "plan": ("model", "train"),
    "eval": ("eval",),
    "sample": ("sample",),
    "bench": ("bench", "train", "model"),
}
# Groups of a command's flags `--<group>.<setting>`.
DOTTED = {
    "train": ("eval", "sample", "bench", "ngram"),
    "plan": ("eval", "sample", "bench", "ngram"),
    "bench": ("train", "model"),
}


@dataclass(frozen=True)
class Flag:
    """A flag for a setting. is_flat: whether its name has no group."""

    group: str
    setting: str
    is_flat: bool

    @property
    def name(self) -> str:
        """The name without the leading dashes, with underscores."""
        return self.setting if self.is_flat else f"{self.group}.{self.setting}"

    @property
    def details(self) -> FieldInfo:
        """The setting's field in the schema."""
        return GROUPS[self.group].model_fields[self.setting]

    @property
    def is_boolean(self) -> bool:
        """Whether it can be given without a value."""
        return self.details.annotation is bool

    @property
    def is_list(self) -> bool:
        """Whether it can be repeated, with one value each time."""
        return get_origin(plain_type(self.details.annotation)) is list

    @property
    def has_texts(self) -> bool:
        """Whether its value, or each item of a list, is a string."""
        kind = plain_type(self.details.annotation)
        return (plain_type(get_args(kind)[0]) if self.is_list else kind) is str


def flags_of(command: str) -> dict[str, Flag]:
    """Return a command's flags for settings, by their names with underscores."""
    found: dict[str, Flag] = {}
    for group in FLAT.get(command, ()):
        for setting in GROUPS[group].model_fields:
            if setting not in found:
                found[setting] = Flag(group, setting, is_flat=True)
    flat = {(flag.group, flag.setting) for flag in found.values()}
    for group in DOTTED.get(command, ()):
        for setting in GROUPS[group].model_fields:
            if (group, setting) not in flat:
                flag = Flag(group, setting, is_flat=False)
                found[flag.name] = flag
    return found


def plain_type(annotation: Any) -> Any:
    """Strip Annotated and None from a type."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not NoneType]
    is_optional = NoneType in get_args(annotation) and len(parts) == 1
    return plain_type(parts[0]) if is_optional else annotation
