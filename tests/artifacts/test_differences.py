"""Two results are compared by their manifests."""

from pathlib import Path

import pytest
import torch

from nanogpt.artifacts.differences import (
    code_differences,
    environment_differences,
    environment_here,
    in_words,
    input_differences,
    setting_differences,
)
from nanogpt.artifacts.manifests import environment
from nanogpt.artifacts.records.manifests import Environment
from nanogpt.project import Project


def words(differences: list) -> list[str]:
    return [str(one) for one in differences]


def test_settings_that_differ_are_named_with_their_group() -> None:
    before = {"train": {"seed": 1, "max_iters": 20}, "name": "one"}
    now = {"train": {"seed": 2, "max_iters": 20}, "name": "two"}
    assert words(setting_differences(before, now)) == ["train.seed: 1 -> 2", "name: one -> two"]


def test_an_omitted_setting_has_its_neutral_value() -> None:
    before, now = {"train": {"seed": 1}}, {"train": {"seed": 1, "optimizer": "muon"}}
    assert words(setting_differences(before, now)) == ["train.optimizer: adamw -> muon"]
    assert words(setting_differences(now, before)) == ["train.optimizer: muon -> adamw"]


def test_auto_equals_any_resolved_device() -> None:
    before, now = {"eval": {"device": "cpu"}}, {"eval": {"device": "auto"}}
    assert setting_differences(before, now, resolved=True) == []
    assert words(setting_differences(before, now)) == ["eval.device: cpu -> auto"]
    other = {"eval": {"device": "cuda"}}
    assert words(setting_differences(before, other, resolved=True)) == ["eval.device: cpu -> cuda"]


def test_values_are_written_as_in_a_config() -> None:
    values = [None, "", "a\nb", [1, 2], True, "text", "x" * 99]
    written = ["none", '""', '"a\\nb"', "[1, 2]", "true", "text", "x" * 59 + "…"]
    assert [in_words(value) for value in values] == written


def test_inputs_of_two_runs_are_matched_by_name() -> None:
    before = {"results/one/model/config.json": "1", "results/datasets/a/tokenizer.json": "2"}
    now = {"results/two/model/config.json": "1", "results/datasets/b/tokenizer.json": "3"}
    assert words(input_differences(before, now)) == ["results/datasets/b/tokenizer.json: 2 -> 3"]


def test_the_models_tokenizer_is_not_the_datasets() -> None:
    before = {"results/one/model/tokenizer.json": "1", "results/datasets/a/tokenizer.json": "2"}
    now = {"results/two/model/tokenizer.json": "1", "results/datasets/a/tokenizer.json": "2"}
    assert input_differences(before, now) == []


def test_an_input_that_one_result_lacks_is_named() -> None:
    before, now = {"a": "1"}, {"a": "1", "b": "2"}
    assert words(input_differences(before, now)) == ["b: none -> 2"]
    assert words(input_differences(now, before)) == ["b: 2 -> none"]


def test_unrecorded_code_changes_are_unknown(tmp_path: Path) -> None:
    assert code_differences(Project(tmp_path), "one", "one") == []
    (difference,) = code_differences(Project(tmp_path), "one", "two")
    assert "in unknown functions" in difference.what


def test_environments_are_compared_in_their_common_fields() -> None:
    made = environment(threads=2)
    assert environment_differences(made, environment_here(made)) == []
    older = made.model_copy(update={"torch": "1.0", "threads": 7})
    older = Environment.model_validate({**older.model_dump(exclude_unset=True), "torch": "1.0"})
    here = environment_here(older)
    (difference,) = environment_differences(older, here)
    assert difference.what == "torch"


def test_torchs_version_here_is_that_of_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the wheel's metadata have a shorter one, such as 2.13.0 instead of 2.13.0+cu130."""
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0")
    made = Environment.model_validate({**environment(threads=2).model_dump(), "torch": "1.0"})
    assert environment_here(made).torch == str(torch.__version__)
