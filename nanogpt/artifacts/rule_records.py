"""Read Snakemake's records of how outputs were made, which decide whether a rule runs again.

Snakemake itself isn't imported. Its records are JSON files in `.snakemake/metadata/`, named after
the outputs. As in Snakemake, a record in another form counts as missing.
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

# The first format in which params are recorded in a form that can be compared.
FIRST_FORMAT = 6

# If an input is newer than an output, Snakemake compares its contents up to this size in bytes, the
# default of --max-checksum-file-size.
LARGEST_COMPARED = 1_000_000

_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)
_STRINGS: TypeAdapter[list[str]] = TypeAdapter(list[str])


@dataclass(frozen=True)
class RuleRecord:
    """How an output was made. params: the repr of each. checksums: of small inputs, by path."""

    rule: str
    params: frozenset[str]
    inputs: tuple[str, ...]
    checksums: dict[str, str]

    def values(self) -> Iterator[JsonValue]:
        """The params as JSON values. Strings that contain a JSON object are parsed."""
        for text in self.params:
            try:
                value = ast.literal_eval(text)
                if isinstance(value, str) and value.startswith("{"):
                    value = json.loads(value)
                yield _JSON.validate_python(value)
            except (ValueError, SyntaxError, RecursionError):
                continue

    def groups(self) -> dict[str, JsonValue]:
        """The settings among the params, by group; empty if there aren't any."""
        return next((value for value in self.values() if isinstance(value, dict)), {})


def read_rule_record(project: Project, output: str) -> RuleRecord | None:
    """Snakemake's record of an output; None if there isn't one that it would compare."""
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
    """Whether Snakemake is making an output now, or was killed while making it."""
    return _place(project.unfinished_records, output).exists()


def _place(directory: Path, output: str) -> Path:
    """The path of Snakemake's record of an output: its name in base64, split where too long."""
    name = urlsafe_b64encode(output.encode()).decode()
    longest = _longest_name(directory) - 1
    parts = [name[i : i + longest] for i in range(0, len(name), longest)]
    return directory.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def _longest_name(directory: Path) -> int:
    try:
        return os.pathconf(directory, "PC_NAME_MAX") or 255
    except (OSError, ValueError):
        return 255
