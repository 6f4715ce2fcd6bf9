"""What all records share: how they are read, written, and refused.

A record's file is JSON. Null stands for what isn't a number, as JSON has no NaN. A field that a
record doesn't have is left out. The first format of a record carries no number; later ones say
`format`.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from nanogpt.errors import UserError
from nanogpt.files.atomic import write_json


def _null_to_nan(value: object) -> object:
    return math.nan if value is None else value


# A number in a file, NaN where the file has null.
Number = Annotated[float, BeforeValidator(_null_to_nan)]
# The same, None where the file has nothing.
OptionalNumber = Annotated[float | None, BeforeValidator(_null_to_nan)]

# A number of things, which fits into 64 bits. Strict: not `"5"`, which pydantic would read as 5.
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
PositiveCount = Annotated[int, Field(strict=True, gt=0, lt=2**63)]

# A JSON object whose keys are the user's or another program's.
JsonObject = dict[str, JsonValue]


class FormatError(UserError):
    """A file of a format that this version doesn't know, most likely a later one's."""


class Record(BaseModel):
    """A frozen model of a JSON object. Unknown keys are dropped."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True
    )

    # The newest format, which is written. A record that changes its form overrides `upgrade`, too.
    FORMAT: ClassVar[int] = 1

    @classmethod
    def upgrade(cls, content: dict[str, Any], found: int) -> dict[str, Any]:
        """The content of a file of format `found`, older than FORMAT, as one of format FORMAT."""
        raise NotImplementedError(f"{cls.__name__} {found}")

    @classmethod
    def parse(cls, content: object, where: str, remedy: str) -> Self:
        """A record from parsed JSON. where: the file, for messages. remedy: what to do about it.

        Errors: UserError that names the file and the field, or the format that isn't known.
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
        """The record as JSON has it: fields that were set, and null for what isn't a number."""
        content = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if self.FORMAT > 1:
            content = {"format": self.FORMAT, **content}
        finite: JsonObject = _finite(content)
        return finite


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_record(path: Path, kind: type[AnyRecord], remedy: str = "make it again") -> AnyRecord:
    """Read a record from its file.

    Errors: UserError, in one line that names the file, and the field or format that is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # fails for half a character
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
    """The first field that is wrong, and what is."""
    first = error.errors(include_url=False)[0]
    field = field_name(first["loc"])
    if first["type"] == "missing":
        return f"`{field}` is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"`{field}` {message}"


def field_name(location: Iterable[int | str]) -> str:
    """A place in a JSON file as a dotted name: `orders.0.loss`."""
    return ".".join(map(str, location))
