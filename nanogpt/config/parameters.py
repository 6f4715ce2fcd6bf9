"""Convert settings to and from the parameters of a stage, which are hashed into its version.

The settings of the first version are always among the parameters. A setting that is added later
declares a neutral value, which means "as before this setting existed". The neutral value never
changes, even if the default does. A setting at its neutral value is left out of the parameters, so
a new setting re-runs nothing. A setting that's missing from the parameters has its neutral value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, Field, JsonValue, ValidationError

from nanogpt.config.messages import explain
from nanogpt.errors import UserError

AnySettings = TypeVar("AnySettings", bound=BaseModel)


@dataclass(frozen=True)
class Neutral:
    """The JSON value of a setting that means "as before this setting existed"."""

    value: JsonValue


def new_setting(default: Any, *, neutral: JsonValue, **details: Any) -> Any:
    """Define a field for a setting that earlier versions didn't have.

    details: passed to pydantic's Field, such as `description` and `ge`.
    """
    field = Field(default, **details)
    field.metadata.append(Neutral(neutral))
    return field


class NamesInput:
    """Marks a setting that names an input of the stage. Its digest counts, not its name."""


def input_setting(**details: Any) -> Any:
    """Define an optional field for a setting that names an input of the stage.

    It isn't a parameter, so another name for the same files re-runs nothing.
    """
    field = new_setting(None, neutral=None, **details)
    field.metadata.append(NamesInput())
    return field


@cache
def neutral_values(model: type[BaseModel]) -> Mapping[str, JsonValue]:
    """Return the neutral value of each setting that declares one."""
    return MappingProxyType(
        {
            name: mark.value
            for name, field in model.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Neutral)
        }
    )


@cache
def _input_names(model: type[BaseModel]) -> frozenset[str]:
    """Return the settings that name inputs."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if any(isinstance(mark, NamesInput) for mark in field.metadata)
    )


def as_parameters(settings: BaseModel, only: set[str] | None = None) -> dict[str, JsonValue]:
    """Return a group's settings as JSON, without inputs and those at their neutral values.

    only: the settings that matter; None: all.
    """
    neutral, named = neutral_values(type(settings)), _input_names(type(settings))
    return {
        name: value
        for name, value in settings.model_dump(mode="json", include=only).items()
        if name not in named and (name not in neutral or value != neutral[name])
    }


def complete(
    model: type[AnySettings], given: Mapping[str, JsonValue], *, partial: bool = False
) -> AnySettings:
    """Restore settings from parameters. Missing ones get their neutral values, not the defaults.

    partial: whether settings without a neutral value may be missing too.

    Errors: UserError for a missing or unknown setting, or a wrong value.
    """
    filled = {**neutral_values(model), **given}
    for name in model.model_fields:
        if name not in filled and not partial:
            raise UserError(f"`{name}` is missing")
    try:
        return model.model_validate(filled)
    except ValidationError as error:
        raise UserError(explain(error, model)) from None
