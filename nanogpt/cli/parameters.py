"""A command's own parameters, which aren't settings: what they take, checked before tyro reads it.

So a mistake is one line, as everywhere; tyro would draw a box over the help of the flag.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from tyro.conf import Positional

from nanogpt.cli.app import app
from nanogpt.cli.flags import plain_type
from nanogpt.errors import UserError


def parameters_of(command: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a command's function, by name."""
    known = app._subcommands.get(command)
    return inspect.signature(known.target).parameters if known and callable(known.target) else {}


def switches_of(command: str) -> set[str]:
    """The parameters of a command that are yes or no."""
    parameters = parameters_of(command).values()
    return {parameter.name for parameter in parameters if parameter.annotation is bool}


def places_of(command: str) -> list[inspect.Parameter]:
    """The parameters that are given by their place."""
    return [one for one in parameters_of(command).values() if _is_positional(one)]


def values_of(command: str) -> dict[str, inspect.Parameter]:
    """The parameters that are given by a flag, as they're typed, without dashes."""
    parameters = parameters_of(command).values()
    return {one.name.rstrip("_"): one for one in parameters if not _is_positional(one)}


def takes_many(command: str) -> bool:
    """Whether one of its parameters takes any number of words."""
    return any(get_origin(plain_type(one.annotation)) is tuple for one in places_of(command))


def check_places(command: str, words: Sequence[str]) -> None:
    """UserError for a word that's missing, or isn't one of those that are allowed there."""
    if takes_many(command):
        return
    for number, place in enumerate(places_of(command)):
        if number < len(words):
            _check(command, _title(place), words[number], place)
        elif place.default is inspect.Parameter.empty:
            raise UserError(
                f"{command}: {_title(place)} is missing; see `nanogpt {command} --help`"
            )


def check_value(command: str, name: str, value: str) -> None:
    """UserError for a value of a flag that isn't of its type."""
    _check(command, f"--{name}", value, values_of(command)[name])


def missing_value(command: str, name: str) -> UserError:
    """The error for a flag without its value."""
    return UserError(
        f"{command}: --{name}: its value is missing: `--{name}=VALUE`; see `nanogpt {command} "
        "--help`"
    )


def check_required(command: str, names: set[str]) -> None:
    """UserError for a flag that must be given and isn't. names: of those that are."""
    for name, parameter in values_of(command).items():
        is_required = parameter.default is inspect.Parameter.empty and name != "flags"
        if is_required and name not in names:
            listed = ", ".join(map(str, get_args(plain_type(parameter.annotation))))
            hint = f"it's one of {listed}" if listed else f"see `nanogpt {command} --help`"
            raise UserError(f"{command}: --{name} is missing; {hint}")


def _check(command: str, title: str, value: str, parameter: inspect.Parameter) -> None:
    kind = plain_type(parameter.annotation)
    wanted = ""
    if get_origin(kind) is Literal and value not in get_args(kind):
        wanted = f"one of {', '.join(get_args(kind))}"
    elif kind in (int, float):
        try:
            kind(value)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
    if wanted:
        raise UserError(f"{command}: {title}: should be {wanted} (found `{value}`)")


def _title(parameter: inspect.Parameter) -> str:
    """What the help calls a parameter."""
    shown: list[Any] = [getattr(one, "metavar", None) for one in get_args(parameter.annotation)]
    return next(filter(None, shown), parameter.name.upper()).strip("[]")


def _is_positional(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    is_annotated = get_origin(annotation) is Annotated
    return is_annotated and get_args(Positional[str])[1] in get_args(annotation)
