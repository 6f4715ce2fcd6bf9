"""Flags from the settings: what each sets, its help, and how typed words become settings.

tyro makes the help, the completion and the parsing from a class for each command. Its values are
texts, so that the settings check them as they check config.yaml's, and in the same words.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from nanogpt.config.loading import read
from nanogpt.config.schema import RunDefaults
from nanogpt.config.variants import GROUPS, Given
from nanogpt.errors import UserError
from nanogpt.project import HERE

# Which group a flat flag sets, for each command; of a setting that two have, the first one's. So
# `--seed` is train's in `train` and sample's in `sample`, as in nanoGPT.
FLAT = {
    "prepare": ("dataset", "corpus"),
    "train": ("model", "train"),
    "plan": ("model", "train"),
    "eval": ("eval",),
    "sample": ("sample",),
    "bench": ("bench", "train", "model"),
}
# Groups that a command's flags set by `--<group>.<setting>`.
DOTTED = {
    "train": ("eval", "sample", "bench", "ngram"),
    "plan": ("eval", "sample", "bench", "ngram"),
    "bench": ("train", "model"),
}

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

# What a message quotes: `setting` or `setting: value`.
QUOTED = re.compile(r"`(\w+)(?:: ([^ `{}]+))?`")

Function = TypeVar("Function", bound=Callable[..., object])

# The functions of the commands, by name.
TAKING_FLAGS: dict[str, Callable[..., object]] = {}


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
        _take_flags(function, _flags_class(command, {}))
        TAKING_FLAGS[command] = function
        return function

    return decorate


def show_defaults(command: str) -> None:
    """Let the help of a command show the defaults of config.yaml, if it's about a run."""
    if "train" in FLAT.get(command, ()):
        _take_flags(TAKING_FLAGS[command], _flags_class(command, _read_defaults()))


def _read_defaults() -> dict[tuple[str, str], Any]:
    """What config.yaml sets for all runs, by group and setting; nothing if it can't be read."""
    try:
        config = read(HERE.config_file)
    except (UserError, ValidationError):  # another command says so
        return {}
    groups = {
        group: getattr(config.defaults, group).model_dump(exclude_unset=True)
        for group in RunDefaults.GROUPS
    }
    preset = config.models.get(groups["model"].get("preset", ""))
    if preset:
        groups["model"] = {**preset.model_dump(exclude_unset=True), **groups["model"]}
    return {(group, name): value for group, own in groups.items() for name, value in own.items()}


def _take_flags(function: Callable[..., object], flags: type[FlagValues]) -> None:
    function.__annotations__["flags"] = Annotated[flags, tyro.conf.arg(name="")]


def given_by(command: str, values: FlagValues) -> list[Given]:
    """The settings that were given, by group."""
    texts = (
        (flag, getattr(getattr(values, _place(flag)), flag.setting))
        for flag in flags_of(command).values()
    )
    return [Given(flag.group, flag.setting, text) for flag, text in texts if text is not None]


def name_flags(words: Sequence[str], message: str) -> str:
    """An error's message; if it's about a setting that a flag gave, in terms of flags.

    `runs.one.train.max_iters: ...` becomes `--max_iters: ...`, and what it quotes to write, such as
    `unknown: skip`, becomes `--unknown=skip`. words: the command line, normalised.
    """
    flags = flags_of(words[0]) if words else {}
    typed = [word[2:].partition("=")[0] for word in words[1:] if word.startswith("--")]
    where, colon, rest = message.partition(": ")
    for flag in (flags[name] for name in typed if name in flags):
        path = rf"((runs\..+\.)?{flag.group}|{flag.group}s\..+)\.{flag.setting}(\.\d+)?"
        if re.fullmatch(path, where):
            return f"--{flag.name}{colon}{QUOTED.sub(lambda found: _quote(found, flags), rest)}"
    return message


def _quote(found: re.Match[str], flags: Mapping[str, Flag]) -> str:
    """A quoted setting as a flag, if the command has it."""
    setting, value = found.groups()
    if setting not in flags:
        return found[0]
    return f"`--{setting}`" if value is None else f"`--{setting}={value}`"


def _place(flag: Flag) -> str:
    """The field of a command's class that holds a flag."""
    return flag.group if flag.is_flat else f"other_{flag.group}"


def _flags_class(command: str, defaults: Mapping[tuple[str, str], Any]) -> type[FlagValues]:
    """A class with a field for each group, whose class has a field for each flag.

    defaults: those that aren't the built-in ones, by group and setting.
    """
    places: dict[str, list[Flag]] = {}
    for flag in flags_of(command).values():
        places.setdefault(_place(flag), []).append(flag)
    groups: list[tuple[str, Any, Any]] = []
    for place, flags in places.items():
        made = make_dataclass(f"{place}_flags", [_field(flag, defaults) for flag in flags])
        made.__doc__ = (GROUPS[flags[0].group].__doc__ or place).splitlines()[0]
        about = tyro.conf.arg(name="" if flags[0].is_flat else flags[0].group)
        groups.append((place, Annotated[made, about], field(default_factory=made)))
    return make_dataclass(f"{command}_flags", groups, bases=(FlagValues,))


def _field(flag: Flag, defaults: Mapping[tuple[str, str], Any]) -> tuple[str, Any, Any]:
    built_in = flag.details.get_default(call_default_factory=True)
    default = _shown(defaults.get((flag.group, flag.setting), built_in))
    more = "; repeat the flag for more" if flag.is_list else ""
    about = tyro.conf.arg(
        help=flag.details.description,
        metavar=_metavar(flag.details.annotation),
        help_behavior_hint=f"(default: {default}{more})",
    )
    return flag.setting, Annotated[str | None, about], field(default=None)


def _shown(default: Any) -> str:
    """A default as it would be typed."""
    if default is None or default == []:
        return "none"
    text = str(default)
    return text if text and text.isprintable() else json.dumps(text)


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
