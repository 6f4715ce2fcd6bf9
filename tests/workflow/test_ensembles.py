"""An ensemble averages other runs' predictions and trains nothing."""

import json
from pathlib import Path

from tests.workflow.projects import BOTH, nanogpt, planned, setting, snakemake


def evaluation(project: Path, run: str) -> dict:
    return json.loads((project / f"results/{run}/eval.json").read_text())


def test_an_ensemble_is_better_than_the_mean_of_its_runs(done_project: Path) -> None:
    one, two, both = (evaluation(done_project, run) for run in ("one", "two", "both"))
    losses = [run["val"]["loss"] for run in (one, two)]
    assert both["val"]["loss"] < sum(losses) / 2
    assert both["model"]["n_parameters"] == 2 * one["model"]["n_parameters"]
    assert [model["n_embd"] for model in both["model"]["ensemble"]] == [16, 16]
    assert "# 2 samples of both\n" in (done_project / BOTH[1]).read_text()


def test_retraining_a_member_remakes_the_ensemble(project: Path) -> None:
    setting("runs", "two", "train", value={"seed": 3})(project)
    assert planned(project, *BOTH) == {"train": 1, "combine": 1, "eval": 1, "sample": 1}


def test_an_ensemble_has_no_metrics(done_project: Path) -> None:
    run = snakemake(done_project, "-n", "results/both/metrics.jsonl")
    assert run.returncode != 0
    assert "train" not in run.stdout


def test_an_ensembles_results_name_its_runs_and_no_training(done_project: Path) -> None:
    lines = nanogpt(done_project, "config", "both").stdout.splitlines()
    assert lines[:2] == ["dataset: play", "ensemble: [one, two]"]
    assert "train:" not in lines
    assert "sample:" in lines
