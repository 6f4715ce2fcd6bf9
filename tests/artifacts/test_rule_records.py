"""Snakemake's records are read if they have the known form; others count as missing."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from nanogpt.artifacts.rule_records import is_unfinished, read_rule_record
from nanogpt.project import Project

OUTPUT = "results/one/eval.json"
NOTE = {
    "record_format_version": 6,
    "rule": "eval",
    "params": ["'abc'", "{'eval': {'seed': 1}}"],
    "input": ["results/one/model/config.json"],
    "input_checksums": {"results/one/model/config.json": "sha256:12"},
}


def note(root: Path, content: str, output: str = OUTPUT, kind: str = "metadata") -> None:
    path = root / ".snakemake" / kind / urlsafe_b64encode(output.encode()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_a_record_is_read(tmp_path: Path) -> None:
    note(tmp_path, json.dumps(NOTE))
    record = read_rule_record(Project(tmp_path), OUTPUT)
    assert record
    assert record.groups() == {"eval": {"seed": 1}}
    assert record.inputs == ("results/one/model/config.json",)


def test_settings_in_a_string_are_read(tmp_path: Path) -> None:
    settings = json.dumps({"train": {"seed": 1}})
    note(tmp_path, json.dumps({**NOTE, "params": [repr("abc"), repr(settings)]}))
    record = read_rule_record(Project(tmp_path), OUTPUT)
    assert record
    assert record.groups() == {"train": {"seed": 1}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        json.dumps({**NOTE, "record_format_version": 5}),
        json.dumps({**NOTE, "params": None}),
        json.dumps({**NOTE, "input": [1]}),
        json.dumps({**NOTE, "input_checksums": []}).replace("[]", "[1]"),
        json.dumps({**NOTE, "incomplete": True}),
    ],
)
def test_a_record_in_another_form_counts_as_missing(tmp_path: Path, content: str) -> None:
    note(tmp_path, content)
    assert read_rule_record(Project(tmp_path), OUTPUT) is None


def test_without_records_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert read_rule_record(Project(tmp_path), OUTPUT) is None
    assert not is_unfinished(Project(tmp_path), OUTPUT)


def test_code_in_a_record_is_not_run(tmp_path: Path) -> None:
    note(tmp_path, json.dumps({**NOTE, "params": ["__import__('os').mkdir('executed')"]}))
    record = read_rule_record(Project(tmp_path), OUTPUT)
    assert record
    assert record.groups() == {}


def test_unfinished_outputs_are_recognised(tmp_path: Path) -> None:
    note(tmp_path, "", kind="incomplete")
    assert is_unfinished(Project(tmp_path), OUTPUT)
