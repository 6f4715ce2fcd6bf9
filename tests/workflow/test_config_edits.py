"""An edit of config.yaml or of a text reruns only what depends on it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.projects import (
    AFTER_TRAIN,
    REMODELLING,
    RETOKENIZING,
    RETRAINING,
    Edit,
    edit_config,
    make,
    planned,
    replacement,
    setting,
    snakemake,
)

# Edits that change no result.
NEUTRAL: dict[str, Edit] = {
    "a default written out": setting("runs", "one", "train", "beta1", value=0.9),
    "a number written in another way": setting("runs", "two", "train", "seed", value="2"),
    "a mirror": setting("mirrors", value=["/somewhere"]),
    "n-grams that aren't mixed in": setting("runs", "one", "ngram", value=False),
    "a setting of another tokenizer": setting("datasets", "play", "vocab_size", value=300),
    "a run that isn't in the report": setting("runs", "three", value={"dataset": "play"}),
    "random weights written out": setting("runs", "one", "train", "init_from", value=None),
    "a comment": replacement("config.yaml", "runs:", "# mine\nruns:"),
}

EDITS: dict[str, tuple[Edit, dict[str, int]]] = {
    "a sampling setting of one run": (
        setting("runs", "one", "sample", "temperature", value=0.5),
        {"sample": 1, "bench_report": 1},
    ),
    "an evaluation setting of one run": (
        setting("runs", "one", "eval", "seed", value=3),
        {"eval": 1, "bench_report": 1},
    ),
    "a training setting of one run": (
        setting("runs", "one", "train", "learning_rate", value=0.002),
        dict.fromkeys(AFTER_TRAIN, 1),
    ),
    "how often a training is logged": (
        setting("runs", "one", "train", "log_interval", value=5),
        dict.fromkeys(AFTER_TRAIN, 1),
    ),
    "milestones": (
        setting("runs", "one", "train", "milestones", value=[5]),
        dict.fromkeys(AFTER_TRAIN, 1),
    ),
    "a model setting of one run": (
        setting("runs", "one", "model", value={"preset": "tiny", "dropout": 0.2}),
        {**dict.fromkeys(AFTER_TRAIN, 1), "bench": 2},  # for two models now
    ),
    "the dataset of one run": (
        lambda project: (
            setting("datasets", "again", value={"corpus": "play"})(project),
            setting("runs", "one", "dataset", value="again")(project),
            setting("runs", "both", "ensemble", value=["two"])(project),
        ),
        {**dict.fromkeys(AFTER_TRAIN, 1), "prepare": 1, "ngram": 1, "bench": 2},
    ),
    "a setting of the benchmark": (
        setting("defaults", "bench", "steps", value=3),
        {"bench": 1, "bench_report": 1},
    ),
    "a sampling setting of all runs": (
        setting("defaults", "sample", "seed", value=3),
        {"sample": 2, "bench_report": 1},
    ),
    "a model setting of all runs": (setting("models", "tiny", "n_embd", value=32), REMODELLING),
    "the split": (setting("datasets", "play", "val_ratio", value=0.2), RETOKENIZING),
    "the corpus": (
        setting("corpora", "play", "seed", value=2),
        {**RETOKENIZING, "write_builtin": 1},
    ),
    "how newlines are read": (setting("corpora", "play", "newlines", value="lf"), RETOKENIZING),
    "the tokenizer": (setting("datasets", "play", "tokenizer", value="byte"), RETOKENIZING),
    "n-grams mixed in one run": (
        setting("runs", "one", "ngram", value=True),
        {"count_ngrams": 1, "eval": 1, "sample": 1, "bench_report": 1},
    ),
    "the report's runs": (setting("report", "runs", value=["one"]), {"bench_report": 1}),
}


# Each case needs a dry run and a copy of the project. There's one case for each kind of edit.
FAST = (
    "a sampling setting of one run",
    "a training setting of one run",
    "the dataset of one run",
    "a model setting of all runs",
    "the tokenizer",
    "the report's runs",
)


@pytest.mark.parametrize(
    "what", [pytest.param(w, marks=[] if w in FAST else [pytest.mark.slow]) for w in EDITS]
)
def test_an_edit_reruns_what_depends_on_it(project: Path, what: str) -> None:
    edit, expected = EDITS[what]
    edit(project)
    assert planned(project) == expected


def test_an_edit_that_changes_no_result_reruns_nothing(project: Path) -> None:
    config = project / "config.yaml"
    before = config.read_text()
    for edit in NEUTRAL.values():
        edit(project)
    if planned(project) != {}:
        # One dry run tests all edits together. If it fails, find out which edit was the reason.
        for what, edit in NEUTRAL.items():
            config.write_text(before)
            edit(project)
            assert planned(project) == {}, what
        pytest.fail("only the combination of these edits reruns something")


def test_the_command_line_overrides_every_run(done_project: Path) -> None:
    assert planned(done_project, "--config", "train={beta2: 0.95}") == RETRAINING


def test_a_changed_prompt_file_is_noticed(project: Path) -> None:
    (project / "prompt.txt").write_text("[Enter ")
    edit_config(project, lambda c: c["defaults"]["sample"].update(start="FILE:prompt.txt"))
    target = "results/one/samples.txt"
    make(project, target)
    assert "[Enter " in (project / target).read_text()
    (project / "prompt.txt").write_text("Where is ")
    assert planned(project, target) == {"sample": 1}


def test_a_new_text_becomes_a_run_and_a_changed_one_is_noticed(
    project: Path,
) -> None:
    text = project / "resources/texts/mybook.txt"
    text.write_text("It was a bright cold day, and the clocks were striking.\n" * 40)
    target = "results/mybook/samples.txt"
    make(project, target)
    assert planned(project, target) == {}
    text.write_text("Call me whatever you like, but call me early for breakfast.\n" * 40)
    os.utime(text, (1_000_000_000, 1_000_000_000))
    assert planned(project, target) == {"prepare": 1, "train": 1, "sample": 1}


def test_a_wrong_sha256_is_an_error_even_if_the_dataset_is_cached(project: Path) -> None:
    text = project / "novel.txt"
    text.write_text("It was a dark and stormy night.\n" * 40)
    edit_config(
        project,
        lambda config: (
            config["corpora"].update(novel={"files": "novel.txt"}),
            config["datasets"].update(novel={}),
        ),
    )
    target = "results/datasets/novel/meta.json"
    assert snakemake(project, target, NANOGPT_CACHE="cache").returncode == 0
    shutil.rmtree(project / "results/datasets/novel")
    edit_config(project, lambda config: config["corpora"]["novel"].update(sha256="0" * 64))
    run = snakemake(project, target, NANOGPT_CACHE="cache")
    assert run.returncode != 0
    assert "novel.txt: wrong sha256" in run.stderr


def test_cached_n_grams_name_the_right_dataset(project: Path) -> None:
    edit_config(project, lambda config: config["datasets"].update(twin={"corpus": "play"}))
    target = "results/datasets/twin/ngram.json"
    assert snakemake(project, "results/datasets/play/ngram.json", target).returncode == 0
    assert json.loads((project / target).read_text())["dataset"] == "twin"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("FILE:nope.txt", "runs.one.sample.start: nope.txt: no such file"),
        ("FILE:", "runs.one.sample.start: FILE:: no such file"),
    ],
)
def test_a_missing_prompt_file_is_named(project: Path, start: str, message: str) -> None:
    edit_config(project, setting_of_one(start))
    run = snakemake(project, "-n")
    assert run.returncode != 0
    assert f"error: {message}" in run.stdout + run.stderr


def setting_of_one(start: str) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["runs"]["one"].setdefault("sample", {}).update(start=start)
