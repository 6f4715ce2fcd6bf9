"""One-line messages for mistakes in settings, from pydantic's errors and unknown names."""

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
from nanogpt.config.values import TRUE_OR_FALSE
from nanogpt.errors import UserError, in_backticks, plural, shorten

# Runs that a message lists.
RUNS_SHOWN = 3

# A message lists all known names if none is similar and there are at most this many.
MANY_NAMES = 20

# Values of these types are shown in messages.
SHOWN = (str, int, float, list, date, type(None))

# Messages for some of pydantic's types of errors.
PROBLEMS = {
    "bool_type": TRUE_OR_FALSE,
    "bool_parsing": TRUE_OR_FALSE,
    "dict_type": "should be a mapping of settings",
    "model_type": "should be a mapping of settings",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "list_type": "should be a list",
    "string_too_short": "should not be empty",
}


def look_up(names: Any, name: str, where: str, kind: str) -> Any:
    """Return `names[name]`, or `name` if `names` is a list.

    Errors: UserError that suggests the most similar name if `name` is unknown.
    """
    if name not in names:
        raise UserError(f"{where}: no {kind} `{name}`{did_you_mean(name, names)}")
    return names[name] if isinstance(names, Mapping) else name


def list_some(names: Sequence[str]) -> str:
    """List the first few names, then the number of the others."""
    shown = ", ".join(f"`{name}`" for name in names[:RUNS_SHOWN])
    return shown + (f" and {len(names) - RUNS_SHOWN:,} more" if len(names) > RUNS_SHOWN else "")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe the first mistake that a validation found, in one line. model: its class."""
    problems = error.errors(include_url=False)
    first = problems[0]
    location = first["loc"]
    is_key = location[-1:] == ("[key]",)
    # An entry of a list that is shown needs no number; YAML may have it without a list.
    needs_numbers = not isinstance(first["input"], SHOWN)
    way = location[:-2] if is_key else location
    parts = [str(part) for part in way if needs_numbers or isinstance(part, str)]
    if is_key:  # pydantic shows the key as Python, not as YAML
        parts.append(show_value(first["input"]))
    where = ".".join(parts)
    if first["type"] == "extra_forbidden":
        *parents, name = location
        message = _unknown(str(name), parents, model)
    else:
        message = explain_one(first)
    more = f" (and {plural(len(problems) - 1, 'more mistake')})" if len(problems) > 1 else ""
    return f"{where or 'config'}: {message}{more}"


def explain_one(error: ErrorDetails) -> str:
    """Describe one of pydantic's errors and the value that caused it."""
    message = _problem(error)
    found = error["input"]
    if isinstance(found, SHOWN) and f"`{found}`" not in message:
        message += f" (found {quote_value(found)})"
    return message


def _problem(error: ErrorDetails) -> str:
    """Describe one of pydantic's errors in the terms of config.yaml."""
    if error["type"] == "string_pattern_mismatch":
        return f"should be {PATTERNS[error['ctx']['pattern']]}"
    if error["type"] in PROBLEMS:
        return PROBLEMS[error["type"]]
    if error["type"] == "literal_error":
        return in_backticks(f"should be {error['ctx']['expected']}")
    if error["type"] == "string_type" and isinstance(error["input"], int | float | date):
        return "should be text; put it in quotes"
    if error["type"] == "int_from_float" or (
        error["type"] == "int_parsing" and _is_number(error["input"])
    ):
        return "should be a whole number"
    if error["type"] == "int_parsing":
        return "should be a number, such as 10000, 10_000 or 1e4"
    if error["type"] == "float_parsing":
        return "should be a number, such as 0.1 or 1e-3"
    message: str = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]


def _is_number(value: object) -> bool:
    """Whether a value is the text of a finite number, as flags are."""
    with contextlib.suppress(ValueError):
        return isinstance(value, str) and math.isfinite(float(value))
    return False


def show_value(value: Any) -> str:
    """Return a value as config.yaml would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "nothing"
    if isinstance(value, date):
        return str(value)
    text = str(value) or "''"
    if isinstance(value, list):
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return shorten(text)


def quote_value(value: Any) -> str:
    """Return a value as a message quotes it."""
    return "nothing" if value is None else f"`{show_value(value)}`"


def _unknown(name: str, way: Sequence[str | int], model: type[BaseModel]) -> str:
    """Describe an unknown setting: the group it belongs to, or the most similar setting."""
    models = _models_along(way, model)
    for depth in range(len(way), -1, -1):
        if depth in models:
            places = _groups_with(name, [*map(str, way[:depth])], models[depth])
            if places:
                return f"not a setting here; move it to {' or '.join(places)}"
    return f"unknown setting{did_you_mean(name, models[len(way)].model_fields)}"


def _models_along(way: Sequence[str | int], model: type[BaseModel]) -> dict[int, type[BaseModel]]:
    """Return the models on a path from `model` down to a setting, by depth."""
    models, depth = {0: model}, 0
    while depth < len(way):
        inner, named = _model_of(model.model_fields[str(way[depth])].annotation)
        depth += 2 if named else 1
        assert inner
        models[depth] = model = inner
    return models


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return a field's group of settings, if it has one, and whether it's a mapping by name."""
    if get_origin(annotation) is Annotated:
        return _model_of(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return _model_of(get_args(annotation)[1])[0], True
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (annotation if is_model else None), False


def _groups_with(name: str, way: Sequence[str], model: type[BaseModel]) -> list[str]:
    """Return the groups in a model that have a setting; fixed groups before mappings by name."""
    plain: list[str] = []
    named: list[str] = []
    for group, field in model.model_fields.items():
        inner, by_name = _model_of(field.annotation)
        if inner and name in inner.model_fields:
            place = ".".join([*way, group])
            (named if by_name else plain).append(f"`{place}.<name>`" if by_name else f"`{place}`")
    return plain or named


def nearest(name: str, names: Iterable[str], cutoff: float = 0.65) -> str | None:
    """Return the name most similar to `name`; None if no name is similar enough."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, names: Iterable[str], none: str = "; none is defined") -> str:
    """Suggest the most similar name, or all of them if there are only a few."""
    names = list(names)
    near = nearest(name, names, cutoff=0.5)
    if near:
        return f"; did you mean `{near}`?"
    few = len(names) <= MANY_NAMES
    if names and few:
        return f"; choose from {', '.join(f'`{n}`' for n in names)}"
    return "" if names else none


def yaml_scalar(value: Any) -> str:
    """Return a scalar as YAML writes it, with strings in double quotes."""
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
