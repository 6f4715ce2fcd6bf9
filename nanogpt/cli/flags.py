"""Flags from the settings: what each sets, its help, and how typed words become settings.

tyro makes the help, the completion and the parsing from a class for each command. Its values are
texts, so that the settings check them as they check config.yaml's, and in the same words.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic.fields import FieldInfo

from nanogpt.config.variants import GROUPS, Given

# Which group a flat flag sets, for each command; of a setting that two have, the first one's. So
# `--seed` is train's in `train` and sample's in `sample`, as in nanoGPT.
FLAT = {
    "prepare": ("dataset", "corpus"),
    "train": ("model", "train"),
    "eval": ("eval",),
    "sample": ("sample",),
    "bench": ("bench", "train", "model"),
}
# Groups that a command's flags set by `--<group>.<setting>`.
DOTTED = {"train": ("eval", "sample", "bench", "ngram"), "bench": ("train", "model")}

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

Function = TypeVar("Function", bound=Callable[..., object])


class FlagValues:
    """What was given on a command line: a text for each flag, None for those that weren't."""


@dataclass(frozen=True)
class Flag:
    """A flag that sets a setting. is_flat: whether it's written without its group."""

    group: str
    setting: str
    is_flat: bool

    @property
    def name(self) -> str:
        """As it's typed, without dashes in front, with underscores."""
        return self.setting if self.is_flat else f"{self.group}.{self.setting}"

    @property
    def details(self) -> FieldInfo:
        """What the schema says of the setting."""
        return GROUPS[self.group].model_fields[self.setting]

    @property
    def is_boolean(self) -> bool:
        """Whether it can stand without a value."""
        return self.details.annotation is bool

    @property
    def is_list(self) -> bool:
        """Whether it can be given several times, for a value each."""
        return get_origin(plain_type(self.details.annotation)) is list

    @property
    def has_texts(self) -> bool:
        """Whether a value, or each of a list's, is a text."""
        kind = plain_type(self.details.annotation)
        return (plain_type(get_args(kind)[0]) if self.is_list else kind) is str


def flags_of(command: str) -> dict[str, Flag]:
    """The flags of a command that set settings, by their names with underscores."""
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


def with_flags(command: str) -> Callable[[Function], Function]:
    """A decorator: the function's parameter `flags` gets the flags of a command."""

    def decorate(function: Function) -> Function:
        function.__annotations__["flags"] = Annotated[_flags_class(command), tyro.conf.arg(name="")]
        return function

    return decorate


def given_by(command: str, values: FlagValues) -> list[Given]:
    """The settings that were given, by group."""
    texts = (
        (flag, getattr(getattr(values, _place(flag)), flag.setting))
        for flag in flags_of(command).values()
    )
    return [Given(flag.group, flag.setting, text) for flag, text in texts if text is not None]


def _place(flag: Flag) -> str:
    """The field of a command's class that holds a flag."""
    return flag.group if flag.is_flat else f"other_{flag.group}"


def _flags_class(command: str) -> type[FlagValues]:
    """A class with a field for each group, whose class has a field for each flag."""
    places: dict[str, list[Flag]] = {}
    for flag in flags_of(command).values():
        places.setdefault(_place(flag), []).append(flag)
    groups: list[tuple[str, Any, Any]] = []
    for place, flags in places.items():
        made = make_dataclass(f"{place}_flags", [_field(flag) for flag in flags])
        made.__doc__ = (GROUPS[flags[0].group].__doc__ or place).splitlines()[0]
        about = tyro.conf.arg(name="" if flags[0].is_flat else flags[0].group)
        groups.append((place, Annotated[made, about], field(default_factory=made)))
    return make_dataclass(f"{command}_flags", groups, bases=(FlagValues,))


def _field(flag: Flag) -> tuple[str, Any, Any]:
    more = "; repeat the flag for more" if flag.is_list else ""
    about = tyro.conf.arg(
        help=flag.details.description,
        metavar=_metavar(flag.details.annotation),
        help_behavior_hint=f"(default: {_shown_default(flag)}{more})",
    )
    return flag.setting, Annotated[str | None, about], field(default=None)


def _shown_default(flag: Flag) -> str:
    """A default as it would be typed."""
    default = flag.details.get_default(call_default_factory=True)
    if default is None or default == []:
        return "none"
    return str(default) if default != "" else '""'


def plain_type(annotation: Any) -> Any:
    """A type without Annotated and without None."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not NoneType]
    is_optional = NoneType in get_args(annotation) and len(parts) == 1
    return plain_type(parts[0]) if is_optional else annotation


def _metavar(annotation: Any) -> str:
    kind = plain_type(annotation)
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is list:
        return _metavar(get_args(kind)[0])
    return {bool: "{True,False}", int: "INT", float: "FLOAT"}.get(kind, "STR")
