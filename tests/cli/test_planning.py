"""`nanogpt plan` and `nanogpt why` on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nanogpt.cli.main import main
from nanogpt.config.loading import read
from nanogpt.planning import plan as planning
from nanogpt.planning.explaining import explain, find_targets
from nanogpt.planning.staleness import Workflow
from nanogpt.project import Project

CONFIG = """
corpora: {play: {builtin: play, n_characters: 10000}}
datasets: {letters: {corpus: play}}
models: {tiny: {n_layer: 2, n_head: 2, n_embd: 32, block_size: 16}}
defaults: {model: tiny, train: {max_iters: 100, batch_size: 4, warmup_iters: 10, device: cpu}}
runs: {first: {dataset: letters}}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_plan_prints_text(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "first", "--no-measure"])
    lines = capsys.readouterr().out.splitlines()
    first = "first on letters (char, 100 symbols, assumed until the dataset is made)"
    assert lines[0] == first
    assert lines[2].startswith("parameters        ")
    assert sorted(path.name for path in project.iterdir()) == ["config.yaml"]


def test_plan_with_flags_plans_the_new_run_and_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--n_layer=4", "--max-iters=50", "--sample.seed=2"]
    main(["plan", "first", "--no-measure", "--json", *flags])
    content = json.loads(capsys.readouterr().out)
    assert content["run"] == "first.n_layer-4.max_iters-50.sample.seed-2"
    assert content["training"]["tokens"] == 50 * 4 * 16
    main(["plan", "first", "--no-measure", "--json", "--n_layer=2"])  # prints JSON
    before = json.loads(capsys.readouterr().out)
    assert before["run"] == "first"
    assert content["parameters"]["blocks"] == 2 * before["parameters"]["blocks"]
    assert sorted(path.name for path in project.iterdir()) == ["config.yaml"]


def test_plan_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "first", "--no-measure", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["run"] == "first"
    assert content["training"]["tokens"] == 100 * 4 * 16
    assert content["problem"] == ""


def test_plan_of_a_run_that_does_not_fit_ends_with_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "memory_limit", lambda _: 10**6)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "first", "--no-measure"])
    assert str(ended.value.code).startswith("error: first: training needs about ")
    assert "memory, training" in capsys.readouterr().out


def test_why_explains_a_run_that_was_never_made(capsys: pytest.CaptureFixture[str]) -> None:
    main(["why", "results/first/samples.txt"])
    assert capsys.readouterr().out.splitlines() == [
        "results/first/samples.txt: not made yet; 4 jobs would run",
        "  write_builtin play  not made yet",
        "  prepare letters     not made yet",
        "  train first         not made yet",
        "  sample first        not made yet",
    ]


def test_why_shows_which_results_of_a_run_are_missing(project: Path) -> None:
    workflow = Workflow(read(), Project(project))
    path, jobs, files = find_targets(workflow, "first")
    missing = ("eval", "sample")
    verdicts = [
        replace(one, reasons=(), state="never made" if one.job.stage in missing else "current")
        for one in workflow.plan(jobs, files)
    ]
    assert explain(path, jobs, verdicts, {}) == [
        "results/first: partly made; 2 jobs would run",
        "  train first         up to date",
        "  eval first          not made yet",
        "  sample first        not made yet",
    ]


def test_why_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["why", "first", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["path"] == "results/first"
    assert [job["state"] for job in content["jobs"]] == ["never made"] * 5


@pytest.mark.parametrize("command", [["plan", "--no-measure"], ["config"]])
def test_nanogpt_preset_is_known(
    command: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "config.yaml").write_text(CONFIG.replace("first", "shakespeare_char_baby"))
    main([*command, "config/train_shakespeare_char.py"])
    by_preset = capsys.readouterr().out
    main([*command, "shakespeare_char_baby"])
    assert "letters" in by_preset
    assert by_preset.splitlines()[0] == capsys.readouterr().out.splitlines()[0]
