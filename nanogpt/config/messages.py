"""How mistakes in settings are worded: pydantic's errors and unknown names, each in one line."""

import contextlib
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)
from pydantic_core import ErrorDetails

from nanogpt.config.patterns import PATTERNS
from nanogpt.errors import UserError, shorten

# Runs that a message shows.
RUNS_SHOWN = 3

# More names than this are not listed where none is near.
MANY_NAMES = 20


def look_up(names: Any, name: str, where: str, kind: str) -> Any:
    """`names[name]`, or the name of a list; UserError with the nearest name if there is none."""
    if name not in names:
        raise UserError(f"{where}: no {kind} `{name}`{did_you_mean(name, names)}")
    return names[name] if isinstance(names, Mapping) else name


def list_some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in names[:RUNS_SHOWN])
    return shown + (f" and {len(names) - RUNS_SHOWN:,} more" if len(names) > RUNS_SHOWN else "")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake that a validation found, in one line. model: what was validated."""
    problems = error.errors(include_url=False)
    first = problems[0]
    parts = [str(part) for part in first["loc"] if part != "[key]"]
    if first["loc"][-1:] == ("[key]",):  # as config.yaml has it, which pydantic shows as Python's
        parts[-1] = show_value(first["input"])
    where = ".".join(parts)
    if first["type"] == "extra_forbidden":
        *way, name = first["loc"]
        message = _unknown(str(name), way, model)
    else:
        message = explain_one(first)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where or 'config'}: {message}{more}"


def explain_one(error: ErrorDetails) -> str:
    """What one of pydantic's errors says, and of which value."""
    message = _problem(error)
    found = error["input"]
    if isinstance(found, str | int | float | list | date | None) and f"`{found}`" not in message:
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
    if error["type"] == "int_from_float" or (
        error["type"] == "int_parsing" and _is_number(error["input"])
    ):
        return "should be a whole number"
    if error["type"] in ("int_parsing", "float_parsing"):
        return "should be a number, such as 10000, 10_000 or 1e4"
    message: str = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]


def _is_number(value: object) -> bool:
    """Whether a text, as flags give them, is a finite number."""
    with contextlib.suppress(ValueError):
        return isinstance(value, str) and math.isfinite(float(value))
    return False


def show_value(value: Any) -> str:
    """A value as config.yaml would have it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "nothing"
    if isinstance(value, date):
        return str(value)
    text = repr(value)
    if isinstance(value, list):
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return shorten(text)


def _unknown(name: str, way: Sequence[str | int], model: type[BaseModel]) -> str:
    """What to say of a setting that isn't known at a place: where it belongs, or the nearest."""
    models = _models_along(way, model)
    for depth in range(len(way), -1, -1):
        if depth in models:
            places = _groups_with(name, [*map(str, way[:depth])], models[depth])
            if places:
                return f"unknown setting here; it belongs to {' or '.join(places)}"
    return f"unknown setting{did_you_mean(name, models[len(way)].model_fields)}"


def _models_along(way: Sequence[str | int], model: type[BaseModel]) -> dict[int, type[BaseModel]]:
    """The models at the places on the way from `model` into it, by their depth."""
    models, depth = {0: model}, 0
    while depth < len(way):
        inner, named = _model_of(model.model_fields[str(way[depth])].annotation)
        depth += 2 if named else 1
        assert inner
        models[depth] = model = inner
    return models


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The group of settings that a field holds, if it does, and whether by names of the user's."""
    if get_origin(annotation) is Annotated:
        return _model_of(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return _model_of(get_args(annotation)[1])[0], True
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (annotation if is_model else None), False


def _groups_with(name: str, way: Sequence[str], model: type[BaseModel]) -> list[str]:
    """The groups within a model that have a setting, those without names of the user's first."""
    plain: list[str] = []
    named: list[str] = []
    for group, field in model.model_fields.items():
        inner, by_name = _model_of(field.annotation)
        if inner and name in inner.model_fields:
            place = ".".join([*way, group])
            (named if by_name else plain).append(f"`{place}.<name>`" if by_name else f"`{place}`")
    return plain or named


def nearest(name: str, names: Iterable[str], cutoff: float = 0.65) -> str | None:
    """The name that's most like another one; None if none is."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, names: Iterable[str], none: str = "; there is none") -> str:
    """The nearest of some names, else all of them if they are few."""
    names = list(names)
    near = nearest(name, names, cutoff=0.5)
    if near:
        return f"; did you mean `{near}`?"
    few = len(names) <= MANY_NAMES
    if names and few:
        return f"; there is {', '.join(f'`{n}`' for n in names)}"
    return "" if names else none


def yaml_scalar(value: Any) -> str:
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
