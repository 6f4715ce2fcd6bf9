"""How mistakes in settings are worded: pydantic's errors and unknown names, each in one line."""

import difflib
import math
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)
from pydantic_core import ErrorDetails

from nanogpt.config.patterns import PATTERNS
from nanogpt.errors import UserError

# More names than this are not listed where none is near.
MANY_NAMES = 20

# Characters of a wrong value that a message shows.
LONGEST_SHOWN = 80


def look_up(names: Any, name: str, where: str, kind: str) -> Any:
    """`names[name]`, or the name of a list; UserError with the nearest name if there is none."""
    if name not in names:
        raise UserError(f"{where}: no {kind} `{name}`{did_you_mean(name, names)}")
    return names[name] if isinstance(names, Mapping) else name


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake that a validation found, in one line. model: what was validated."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        names = _settings_at(first["loc"][:-1], model)
        message = f"unknown setting{did_you_mean(str(first['loc'][-1]), names)}"
    else:
        message = explain_one(first)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where or 'config'}: {message}{more}"


def explain_one(error: ErrorDetails) -> str:
    """What one of pydantic's errors says, and of which value."""
    message = _problem(error)
    found = error["input"]
    if isinstance(found, str | int | float | list | None) and f"`{found}`" not in message:
        message += f" (found {show_value(found)})"
    return message


def _problem(error: ErrorDetails) -> str:
    """What one of pydantic's errors says, in words of config.yaml."""
    if error["type"] == "string_pattern_mismatch":
        return f"should be {PATTERNS[error['ctx']['pattern']]}"
    if error["type"] in ("dict_type", "model_type"):
        return "should be a mapping of settings"
    if error["type"] == "string_type" and isinstance(error["input"], int | float | date):
        return "should be text; put it in quotes"
    message: str = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]


def show_value(value: Any) -> str:
    """A value as config.yaml would have it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "nothing"
    text = repr(value)
    if isinstance(value, list):
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _settings_at(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """The settings that may stand at a place of what `model` describes."""
    parts = iter(location)
    for part in parts:
        annotation: Any = model.model_fields[str(part)].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a name of the user's, as in runs.<name>
            annotation = get_args(annotation)[1]
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        model = annotation
    return list(model.model_fields)


def did_you_mean(name: str, names: Iterable[str], none: str = "; there is none") -> str:
    """The nearest of some names, else all of them if they are few."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{near[0]}`?"
    few = len(names) <= MANY_NAMES
    if names and few:
        return f"; there is {', '.join(f'`{n}`' for n in names)}"
    return "" if names else none


def yaml_scalar(value: Any) -> str:
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
