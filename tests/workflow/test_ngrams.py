"""Adding n-grams to a run, or removing them, doesn't retrain its GPT."""

import json
from pathlib import Path

import pytest

from tests.workflow.projects import (
    MIXED,
    Computed,
    Edit,
    make,
    nanogpt,
    planned,
    results,
    setting,
)

MIXING = {"count_ngrams": 1, "eval": 1, "sample": 1}


def evaluation(project: Path, run: str) -> dict:
    return json.loads((project / f"results/{run}/eval.json").read_text())


def test_a_run_with_ngrams_has_the_same_gpt_as_one_without(done_project: Path) -> None:
    one, mixed = (evaluation(done_project, run) for run in ("one", "mixed"))
    assert mixed["val"] == one["val"]
    assert "mixture" not in one
    assert mixed["mixture"]["max_order"] == 4
    losses = [mixed["mixture"][name]["loss"] for name in ("across_windows", "within_windows")]
    assert losses[0] < losses[1] < mixed["val"]["loss"]
    weights = [f"results/{run}/model/model.safetensors" for run in ("one", "mixed")]
    assert len(set(results(done_project, *weights).values())) == 1
    samples = (done_project / MIXED[1]).read_text()
    assert "# mixed with n-grams: max_order 4, weight 0.9, caution 0.5\n" in samples


@pytest.mark.parametrize(
    "edit",
    [
        setting("runs", "mixed", "ngram", "weight", value=0.3),
        setting("runs", "mixed", "ngram", "caution", value=0),
        setting("runs", "mixed", "ngram", "max_order", value=3),
    ],
    ids=["weight", "caution", "max_order"],
)
def test_ngram_settings_retrain_nothing(project: Path, edit: Edit) -> None:
    edit(project)
    assert planned(project, *MIXED) == MIXING


@pytest.mark.slow
def test_removing_ngrams_gives_the_results_of_the_gpt_alone(
    project: Path, computed: Computed
) -> None:
    setting("runs", "mixed", "ngram", value=False)(project)
    assert planned(project, *MIXED) == {"eval": 1, "sample": 1}
    make(project, *MIXED, NANOGPT_CACHE=str(computed.cache))
    assert "mixture" not in evaluation(project, "mixed")
    one = (project / "results/one/samples.txt").read_text()
    assert (project / MIXED[1]).read_text() == one.replace("of one", "of mixed")


@pytest.mark.slow
def test_counting_the_same_text_again_gives_the_same_bytes(project: Path) -> None:
    kept = ("results/mixed/model/ngrams.safetensors", *MIXED)
    before = results(project, *kept)
    for path in before:
        (project / path).unlink()
    make(project, *MIXED)
    assert results(project, *kept) == before


def test_the_command_uses_a_models_ngrams_unless_switched_off(
    done_project: Path,
) -> None:
    command = ("sample", "results/mixed/model", "--max-new-tokens", "60", "--num-samples", "1")
    mixed, alone = nanogpt(done_project, *command), nanogpt(done_project, *command, "--no-ngrams")
    assert mixed.stderr == (
        "results/mixed/model/ngrams.safetensors: mixed with n-grams: max_order 4, weight 0.9, "
        "caution 0.5\n"
    )
    assert alone.stderr == ""
    assert mixed.stdout != alone.stdout
