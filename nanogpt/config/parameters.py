"""Settings as the parameters of a stage: what is hashed into a version, and how it's read back.

The settings of the first version are always among the parameters. A setting that is added later
declares a neutral value, which means "as before this setting existed". It never changes afterwards,
whatever becomes of the default. A setting at its neutral value is left out of the parameters, so a
new setting re-runs nothing; a setting that the parameters lack has its neutral value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field, JsonValue, ValidationError

from nanogpt.config.messages import explain
from nanogpt.errors import UserError

AnySettings = TypeVar("AnySettings", bound=BaseModel)


@dataclass(frozen=True)
class Neutral:
    """The value of a setting that means "as before it existed", as JSON has it."""

    value: JsonValue


def new_setting(default: Any, *, neutral: JsonValue, **details: Any) -> Any:
    """A field for a setting that earlier versions didn't have.

    details: as for pydantic's Field, such as `description` and `ge`.
    """
    field = Field(default, **details)
    field.metadata.append(Neutral(neutral))
    return field


class NamesInput:
    """Marks a setting that names an input of the stage. The input's digest counts, not its name."""


def input_setting(**details: Any) -> Any:
    """A field, empty by default, for a setting that names an input of the stage.

    It's no parameter, so another name for the same files re-runs nothing.
    """
    field = new_setting(None, neutral=None, **details)
    field.metadata.append(NamesInput())
    return field


def neutral_values(model: type[BaseModel]) -> dict[str, JsonValue]:
    """The neutral value of each setting that declares one."""
    return {
        name: mark.value
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Neutral)
    }


def as_parameters(settings: BaseModel, only: set[str] | None = None) -> dict[str, JsonValue]:
    """A group of settings as JSON, without those at their neutral values or that name inputs.

    only: the settings that matter, if not all do.
    """
    neutral = neutral_values(type(settings))
    named = {
        name
        for name, field in type(settings).model_fields.items()
        if any(isinstance(mark, NamesInput) for mark in field.metadata)
    }
    return {
        name: value
        for name, value in settings.model_dump(mode="json", include=only).items()
        if name not in named and (name not in neutral or value != neutral[name])
    }


def complete(
    model: type[AnySettings], given: Mapping[str, JsonValue], *, partial: bool = False
) -> AnySettings:
    """Settings from parameters; what they lack has its neutral value, not its default.

    partial: whether settings without a neutral value may be left out, as they don't matter here.

    Errors: UserError for a setting that is missing, unknown or wrong.
    """
    filled = {**neutral_values(model), **given}
    for name in model.model_fields:
        if name not in filled and not partial:
            raise UserError(f"`{name}` is missing")
    try:
        return model.model_validate(filled)
    except ValidationError as error:
        raise UserError(explain(error, model)) from None
