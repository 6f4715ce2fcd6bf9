"""The base of all records: how they're read, checked and written.

A record's file is JSON. NaN and infinity are stored as null, because JSON doesn't have them. Unset
fields are omitted. The first format of a record has no number; later formats have a `format` key.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from nanogpt.errors import REMAKE, UserError, in_backticks
from nanogpt.files.atomic import write_json


def _null_to_nan(value: object) -> object:
    return math.nan if value is None else value


# A number in a file; null is read as NaN.
Number = Annotated[float, BeforeValidator(_null_to_nan)]
# The same, but None if the file doesn't have the field.
OptionalNumber = Annotated[float | None, BeforeValidator(_null_to_nan)]

# A count that fits into 64 bits. Strict, because pydantic would otherwise accept `"5"` as 5.
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
PositiveCount = Annotated[int, Field(strict=True, gt=0, lt=2**63)]

# A JSON object whose keys are the user's or another program's.
JsonObject = dict[str, JsonValue]


# Messages for some of pydantic's types of errors.
FLAWS = {
    "dict_type": "should be a JSON object",
    "model_type": "should be a JSON object",
    "list_type": "should be a list",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
}


class FormatError(UserError):
    """A file in an unknown format, most likely from a later version of nanogpt."""


class Record(BaseModel):
    """A frozen model of a JSON object. Unknown keys are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True
    )

    # The newest format, which is written. Records with more than one format override `upgrade`.
    FORMAT: ClassVar[int] = 1

    @classmethod
    def upgrade(cls, content: dict[str, Any], found: int) -> dict[str, Any]:
        """Convert a file's content from the older format `found` to FORMAT."""
        raise NotImplementedError(f"{cls.__name__} {found}")

    @classmethod
    def parse(cls, content: object, where: str, remedy: str) -> Self:
        """Create a record from parsed JSON. where: the file. remedy: the advice in errors.

        Errors: UserError for a wrong field, with the file and the field; FormatError for an unknown
        format.
        """
        if not isinstance(content, dict):
            raise UserError(f"{where}: damaged: not a JSON object; {remedy}")
        found = content.get("format", 1)
        if type(found) is not int or not 1 <= found <= cls.FORMAT:
            raise FormatError(
                f"{where}: format {json.dumps(found)}, but this version of nanogpt reads formats "
                f"up to {cls.FORMAT}; upgrade nanogpt, or {remedy}"
            )
        try:
            content = {name: value for name, value in content.items() if name != "format"}
            if found < cls.FORMAT:
                content = cls.upgrade(content, found)
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{where}: damaged: {_first_flaw(error)}; {remedy}") from None

    def content(self) -> JsonObject:
        """The record as JSON: the fields that are set, with null for NaN and infinity."""
        content = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if self.FORMAT > 1:
            content = {"format": self.FORMAT, **content}
        finite: JsonObject = _finite(content)
        return finite


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_record(path: Path, kind: type[AnyRecord], remedy: str = REMAKE) -> AnyRecord:
    """Read a record from its file.

    Errors: UserError for a missing or damaged file, with the field or format that's wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # fails for a lone surrogate
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; {remedy}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: damaged: not JSON; {remedy}") from None
    return kind.parse(content, str(path), remedy)


def write_record(path: Path, record: Record) -> None:
    """Write a record to its file, atomically."""
    write_json(path, record.content())


def _finite(value: Any) -> Any:
    """A JSON value with None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _first_flaw(error: ValidationError) -> str:
    """Describe the first error: the field and what's wrong with it."""
    first = error.errors(include_url=False)[0]
    field = field_name(first["loc"])
    if first["type"] == "missing":
        return f"`{field}` is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "literal_error":
        message = in_backticks(message)
    return f"`{field}` {FLAWS.get(first['type'], message)}"


def field_name(location: Iterable[int | str]) -> str:
    """A location in a JSON file as a dotted name: `orders.0.loss`."""
    return ".".join(map(str, location))
