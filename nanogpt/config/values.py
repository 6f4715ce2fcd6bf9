"""The base class of all groups of settings, and the types that several groups share."""

import contextlib
import logging
import os
import re
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

logger = logging.getLogger(__name__)

# What's wrong with a value of a setting that is on or off.
TRUE_OR_FALSE = "should be true or false"

NUMBERS = {int, float, int | None}


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        # pydantic would read `n_layer: yes` as 1.
        raise ValueError("should be a number, not yes or no")
    return value


def whole_number(value: Any) -> Any:
    if isinstance(value, str):
        # pydantic accepts "2000" and 2e3, but not "2e3".
        with contextlib.suppress(ValueError):
            number = float(value)
            return int(number) if "e" in value and number.is_integer() else value
    return _number(value)


def _is_unicode(text: str) -> bool:
    """Whether a text is valid: command-line bytes that aren't UTF-8 become lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class Settings(BaseModel):
    """A frozen group of settings. Unknown keys are errors, and numbers may be strings.

    YAML reads `1e-3` as a string, and Snakemake's `--config 'train={lr: 0.5}'` gives '0.5'.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_value(cls, value: Any, info: Any) -> Any:
        if isinstance(value, str) and not _is_unicode(value):
            raise ValueError("not valid UTF-8")
        annotation = cls.model_fields[info.field_name].annotation
        if annotation == int | None and value in ("null", "none"):  # from the command line
            return None
        if annotation in NUMBERS - {float}:
            return whole_number(value)
        return _number(value) if annotation is float else value


# Below 2^63, so that seed + the number of a sample is a seed too.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, lt=2**63)]


def warn_of_escapes(text: str, where: str) -> None:
    """Warn about a backslash and a letter that were probably meant as a line feed or a tab."""
    found = ESCAPES.search(text)
    if found:
        logger.warning(
            "%s: %s is read as a backslash and a letter; for the special character, use double "
            "quotes in YAML or $'...' in a shell",
            where,
            found.group(),
        )


ESCAPES = re.compile(r"\\[nrt]")


def _one_makes_a_list(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str | int | float) else value


def expand_home(path: str) -> str:
    """Replace `~/` by the home directory, as shells do."""
    return os.path.expanduser(path) if path.startswith("~/") else path  # noqa: PTH111


def read_switch(value: bool | str) -> bool:
    """Read `true`, `on` or another form of it. Errors: ValueError for another text."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        raise ValueError(TRUE_OR_FALSE) from None


# `files: novel.txt` is short for `files: [novel.txt]`.
OneOrMore = BeforeValidator(_one_makes_a_list, json_schema_input_type=str | list[str] | None)
