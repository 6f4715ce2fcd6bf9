"""Command-line flags for settings: their names, their help, and their values.

tyro makes the help, the completion and the parser from a class for each command. All values are
strings, so that the settings check them as in config.yaml, with the same messages.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic import ValidationError

from nanogpt.config.flags import FLAT, Flag, flags_of, plain_type
from nanogpt.config.loading import read
from nanogpt.config.schema import RunDefaults
from nanogpt.config.variants import GROUPS, Given
from nanogpt.errors import UserError
from nanogpt.project import HERE

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

# A setting quoted in a message: `setting` or `setting: value`, but not a value that was found.
QUOTED = re.compile(r"(?<!found )`(\w+)(?:: ([^ `{}]+))?`")

Function = TypeVar("Function", bound=Callable[..., object])

# The functions of the commands with flags for settings, by name.
TAKING_FLAGS: dict[str, Callable[..., object]] = {}


class FlagValues:
    """The values of a command's flags: a string for each, None if it wasn't given."""


def with_flags(command: str) -> Callable[[Function], Function]:
    """Decorate a command to get flags for settings in its parameter `flags`."""

    def decorate(function: Function) -> Function:
        _take_flags(function, _flags_class(command, {}))
        TAKING_FLAGS[command] = function
        return function

    return decorate


def show_defaults(command: str) -> None:
    """Show config.yaml's defaults in the help of a command that trains."""
    if "train" in FLAT.get(command, ()):
        _take_flags(TAKING_FLAGS[command], _flags_class(command, _read_defaults()))


def _read_defaults() -> dict[tuple[str, str], Any]:
    """Return config.yaml's defaults by group and setting; empty if it can't be read."""
    try:
        config = read(HERE.config_file)
    except (UserError, ValidationError):  # reported by other commands
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
    """Return the settings that were given as flags."""
    texts = (
        (flag, getattr(getattr(values, _place(flag)), flag.setting))
        for flag in flags_of(command).values()
    )
    return [Given(flag.group, flag.setting, text) for flag, text in texts if text is not None]


def name_flags(words: Sequence[str], message: str) -> str:
    """Rewrite an error message in terms of flags, if it's about a setting given as a flag.

    `runs.one.train.max_iters: ...` becomes `--max_iters: ...`, and a quoted setting such as
    `unknown: skip` becomes `--unknown=skip`. words: the normalized command line.
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
    """Rewrite a quoted setting as a flag, if the command has that flag."""
    setting, value = found.groups()
    if setting not in flags:
        return found[0]
    return f"`--{setting}`" if value is None else f"`--{setting}={value}`"


def _place(flag: Flag) -> str:
    """Return the field of a command's class that has a flag's group."""
    return flag.group if flag.is_flat else f"other_{flag.group}"


def _flags_class(command: str, defaults: Mapping[tuple[str, str], Any]) -> type[FlagValues]:
    """Make a class with a field for each group, which in turn has a field for each flag.

    defaults: the defaults that differ from the built-in ones, by group and setting.
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
    """Return a default as a user would type it."""
    if default is None or default == []:
        return "none"
    text = str(default)
    return text if text and text.isprintable() else json.dumps(text)


def _metavar(annotation: Any) -> str:
    kind = plain_type(annotation)
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is list:
        return _metavar(get_args(kind)[0])
    return {bool: "{True,False}", int: "INT", float: "FLOAT"}.get(kind, "STR")
