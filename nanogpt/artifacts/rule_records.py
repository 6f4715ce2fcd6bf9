"""What Snakemake noted of a file that a rule made: what it compares before it makes it again.

Snakemake itself isn't imported. Its notes are JSON files in `.snakemake/metadata/`, named after the
outputs. Where one is missing or has another form, there is none: as Snakemake takes it.
"""

import ast
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, TypeAdapter, ValidationError

from nanogpt.project import Project

# Before it, params weren't noted in the form that is compared.
FIRST_FORMAT = 6

# Of an input that is newer than an output, Snakemake compares the contents up to this size, in
# bytes. It's the default of --max-checksum-file-size.
LARGEST_COMPARED = 1_000_000

_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)
_STRINGS: TypeAdapter[list[str]] = TypeAdapter(list[str])


@dataclass(frozen=True)
class RuleRecord:
    """How an output was made. params: the repr of each. checksums: of inputs, up to some size."""

    rule: str
    params: frozenset[str]
    inputs: tuple[str, ...]
    checksums: dict[str, str]

    def values(self) -> Iterator[JsonValue]:
        """The params as JSON values; those that were JSON in a string, parsed."""
        for text in self.params:
            try:
                value = ast.literal_eval(text)
                if isinstance(value, str) and value.startswith("{"):
                    value = json.loads(value)
                yield _JSON.validate_python(value)
            except (ValueError, SyntaxError, RecursionError):
                continue

    def groups(self) -> dict[str, JsonValue]:
        """The settings among the params, by group; nothing if there are none."""
        return next((value for value in self.values() if isinstance(value, dict)), {})


def read_rule_record(project: Project, output: str) -> RuleRecord | None:
    """What Snakemake noted of an output; None if it has nothing that it would compare."""
    try:
        noted = json.loads(_place(project.rule_records, output).read_text(encoding="utf-8"))
        if noted["record_format_version"] < FIRST_FORMAT or noted.get("incomplete"):
            return None
        return RuleRecord(
            rule=str(noted["rule"]),
            params=frozenset(_STRINGS.validate_python(noted["params"])),
            inputs=tuple(_STRINGS.validate_python(noted["input"])),
            checksums={str(k): str(v) for k, v in (noted.get("input_checksums") or {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None


def is_unfinished(project: Project, output: str) -> bool:
    """Whether Snakemake was killed while it made an output, or makes it now."""
    return _place(project.unfinished_records, output).exists()


def _place(directory: Path, output: str) -> Path:
    """Where Snakemake keeps what it notes of an output: its path in base64, cut where too long."""
    name = urlsafe_b64encode(output.encode()).decode()
    longest = _longest_name(directory) - 1
    parts = [name[i : i + longest] for i in range(0, len(name), longest)]
    return directory.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _longest_name(directory: Path) -> int:
    try:
        return os.pathconf(directory, "PC_NAME_MAX") or 255
    except (OSError, ValueError):
        return 255
