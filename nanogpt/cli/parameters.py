"""Check a command's own parameters, which aren't settings, before tyro parses them.

That way, a mistake gets one line as everywhere else. tyro would print a box and the flag's help.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from tyro.conf import Positional

from nanogpt.cli.app import app
from nanogpt.config.flags import plain_type
from nanogpt.errors import UserError

LAST_PORT = 65535


def check_port(port: int) -> None:
    """Raise UserError for a number that isn't a port. 0: any free port."""
    if not 0 <= port <= LAST_PORT:
        raise UserError(f"--port: should be from 0 to {LAST_PORT} (found `{port}`)")


def parameters_of(command: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a command's function, by name."""
    known = app._subcommands.get(command)
    return inspect.signature(known.target).parameters if known and callable(known.target) else {}


def switches_of(command: str) -> set[str]:
    """Return the names of a command's boolean parameters."""
    parameters = parameters_of(command).values()
    return {parameter.name for parameter in parameters if parameter.annotation is bool}


def places_of(command: str) -> list[inspect.Parameter]:
    """Return the positional parameters."""
    return [one for one in parameters_of(command).values() if _is_positional(one)]


def values_of(command: str) -> dict[str, inspect.Parameter]:
    """Return the parameters given as flags, by name without the leading dashes."""
    parameters = parameters_of(command).values()
    return {one.name.rstrip("_"): one for one in parameters if not _is_positional(one)}


def takes_many(command: str) -> bool:
    """Whether a positional parameter accepts any number of arguments."""
    return any(get_origin(plain_type(one.annotation)) is tuple for one in places_of(command))


def check_places(command: str, words: Sequence[str]) -> None:
    """Raise UserError for a missing or invalid positional argument."""
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
    """Raise UserError for a flag's value of the wrong type."""
    _check(command, f"--{name}", value, values_of(command)[name])


def missing_value(command: str, name: str) -> UserError:
    """Return the error for a flag without a value."""
    return UserError(
        f"{command}: --{name}: the value is missing; write `--{name}=VALUE`, and see `nanogpt "
        f"{command} --help`"
    )


def check_required(command: str, names: set[str]) -> None:
    """Raise UserError for a missing required flag. names: the flags that were given."""
    for name, parameter in values_of(command).items():
        is_required = parameter.default is inspect.Parameter.empty and name != "flags"
        if is_required and name not in names:
            listed = ", ".join(map(str, get_args(plain_type(parameter.annotation))))
            hint = f"choose from {listed}" if listed else f"see `nanogpt {command} --help`"
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
    elif parameter.name == "cores" and not re.fullmatch(r"all|0*[1-9][0-9]*", value):
        wanted = "a whole number of at least 1, or all"
    if wanted:
        raise UserError(f"{command}: {title}: should be {wanted} (found `{value}`)")


def _title(parameter: inspect.Parameter) -> str:
    """Return a parameter's name in the help."""
    shown: list[Any] = [getattr(one, "metavar", None) for one in get_args(parameter.annotation)]
    return next(filter(None, shown), parameter.name.upper()).strip("[]")


def _is_positional(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    is_annotated = get_origin(annotation) is Annotated
    return is_annotated and get_args(Positional[str])[1] in get_args(annotation)
