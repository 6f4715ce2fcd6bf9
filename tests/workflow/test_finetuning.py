"""A run that starts from another run's model depends on that run, and is rerun with it."""

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from nanogpt.config.initial import Source, model_of_source
from nanogpt.interchange.hugging_face import config_for_hugging_face, weights_for_hugging_face
from nanogpt.model.checkpoints import load_model
from nanogpt.model.gpt import GPT
from nanogpt.report.runs import read_runs
from tests.checkouts import MIRROR, PROJECT, copy_checkout
from tests.sharing import made_once
from tests.workflow.projects import (
    Computed,
    edit_config,
    errors_of,
    make,
    nanogpt,
    planned,
    setting,
    snakemake,
    write_for_transformers,
)

FINE = "results/fine/metrics.jsonl"
EVALUATED = "results/fine/eval.json"


def add_run(project: Path, name: str, **entry: object) -> None:
    """Add a run on the same dataset as the others, with fewer steps."""
    train = {"max_iters": 4, "warmup_iters": 0, "eval_interval": 2, **entry.pop("train", {})}
    run = {"dataset": "play", **entry, "train": train}
    edit_config(project, lambda config: config["runs"].update({name: run}))


def first_loss(project: Path, run: str) -> float:
    return json.loads((project / f"results/{run}/metrics.jsonl").read_text().split("\n")[0])[
        "val_loss"
    ]


def last_loss(project: Path, run: str) -> float:
    lines = (project / f"results/{run}/metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["val_loss"]


@pytest.fixture(scope="module")
def finetuned_once(computed: Computed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run `fine` that started from the run `one`. Don't change it."""

    def compute(directory: Path) -> None:
        project = Path(shutil.copytree(computed.project, directory / "checkout"))
        add_run(project, "fine", train={"init_from": "one"})
        make(project, EVALUATED)

    return made_once(tmp_path_factory, "finetuned", compute) / "checkout"


@pytest.fixture
def finetuned(finetuned_once: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test can change."""
    return Path(shutil.copytree(finetuned_once, tmp_path / "finetuned"))


def test_the_other_run_is_trained_first(essays: Path) -> None:
    add_run(essays, "fine", train={"init_from": "one"})
    assert planned(essays, FINE) == {"write_builtin": 1, "prepare": 1, "train": 2}


def test_it_starts_from_the_other_runs_final_weights(finetuned_once: Path) -> None:
    assert first_loss(finetuned_once, "fine") == last_loss(finetuned_once, "one")
    assert last_loss(finetuned_once, "fine") < first_loss(finetuned_once, "fine")


def test_why_names_the_runs_that_two_runs_started_from(finetuned: Path) -> None:
    add_run(finetuned, "other", train={"init_from": "two"})
    make(finetuned, "results/other/metrics.jsonl")
    _, *lines = nanogpt(finetuned, "why", "fine", "other").stdout.splitlines()
    assert [line.split("  ", 2)[1:] for line in lines[:2]] == [
        ["train one -> two", "   setting train.seed: 1337 -> 2"],
        ["train fine -> other", "same settings, code and environment; only its inputs differ"],
    ]


def test_why_names_an_initial_model_that_only_one_run_has(finetuned_once: Path) -> None:
    compared = nanogpt(finetuned_once, "why", "one", "fine").stdout
    assert "  train  initial model: none -> results/one/model\n" in compared
    assert "safetensors" not in compared


def test_eval_says_why_it_trains_first(finetuned: Path) -> None:
    assert "training it" not in nanogpt(finetuned, "eval", "fine").stderr
    setting("runs", "one", "train", value={"max_iters": 15})(finetuned)
    lines = nanogpt(finetuned, "eval", "fine", "--cores=1").stderr.splitlines()
    assert lines[:2] == [
        "one: out of date (train.max_iters: 20 -> 15, and 1 more reason); training it again first",
        "fine: out of date (`train one` runs first); training it again first",
    ]
    assert "rule train" not in lines


def test_the_initial_models_digests_are_in_the_manifest(finetuned_once: Path) -> None:
    mine, others = (
        json.loads((finetuned_once / f"results/{run}/train.manifest.json").read_text())
        for run in ("fine", "one")
    )
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        path = f"results/one/model/{name}"
        assert mine["inputs"][path] == others["outputs"][path]
    assert "init_from" not in mine["parameters"]["train"]
    verified = nanogpt(finetuned_once, "verify", "results/fine")
    assert verified.returncode == 0, verified.stdout


def test_the_report_names_the_initial_model(finetuned_once: Path) -> None:
    runs = [finetuned_once / "results" / run for run in ("fine", "one")]
    fine, one = read_runs(runs)
    assert fine.settings["train.init_from"] == "one"
    assert "train.init_from" not in one.settings
    assert fine.group != one.group


def test_a_second_call_reruns_nothing(finetuned_once: Path) -> None:
    assert planned(finetuned_once, EVALUATED) == {}


def test_changing_the_initial_run_retrains_it(finetuned: Path) -> None:
    setting("runs", "one", "train", value={"seed": 7})(finetuned)
    assert planned(finetuned, EVALUATED) == {"train": 2, "eval": 1}


def test_another_initial_run_retrains_it(finetuned: Path) -> None:
    setting("runs", "fine", "train", "init_from", value="two")(finetuned)
    assert planned(finetuned, EVALUATED) == {"train": 1, "eval": 1}


def test_going_back_to_random_weights_retrains_it(finetuned: Path) -> None:
    setting("runs", "fine", "train", "init_from", value=None)(finetuned)
    setting("runs", "fine", "model", value="tiny")(finetuned)
    assert planned(finetuned, EVALUATED) == {"train": 1, "eval": 1}


@pytest.mark.slow
def test_a_users_own_model_is_an_input(finetuned: Path) -> None:
    shutil.copytree(finetuned / "results/one/model", finetuned / "mine/base")
    add_run(finetuned, "fine", train={"init_from": "mine/base"})
    version = version_of(finetuned)
    make(finetuned, FINE)
    # The same files in another directory don't mean another training.
    assert version_of(finetuned) == version
    assert planned(finetuned, FINE) == {}
    shutil.copytree(finetuned / "results/two/model", finetuned / "mine/base", dirs_exist_ok=True)
    make(finetuned, FINE)
    assert version_of(finetuned) != version
    assert first_loss(finetuned, "fine") == last_loss(finetuned, "two")


def version_of(project: Path) -> str:
    version: str = json.loads((project / "results/fine/train.manifest.json").read_text())["version"]
    return version


@pytest.mark.slow
def test_a_directory_of_transformers_is_imported_first(finetuned: Path) -> None:
    write_for_transformers(load_model(finetuned / "results/one/model"), finetuned / "a model")
    add_run(finetuned, "fine", train={"init_from": "./a model"}, model={"block_size": 16})
    assert planned(finetuned, FINE) == {"import_model": 1, "train": 1}
    make(finetuned, FINE)
    (imported,) = finetuned.glob("resources/imported/a_model-*/model.safetensors")
    before = finetuned / "results/one/model/model.safetensors"
    assert imported.read_bytes() == before.read_bytes()
    config = json.loads((finetuned / "results/fine/model/config.json").read_text())
    assert (config["block_size"], config["bias"]) == (16, False)
    assert planned(finetuned, FINE) == {}
    write_for_transformers(load_model(finetuned / "results/two/model"), finetuned / "another")
    shutil.copytree(finetuned / "another", finetuned / "a model", dirs_exist_ok=True)
    assert planned(finetuned, FINE) == {"import_model": 1, "train": 1}


@pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set")
def test_gpt2_by_name_is_downloaded_imported_and_then_trained(essays: Path) -> None:
    setting("datasets", "words", value={"corpus": "play", "tokenizer": "gpt2"})(essays)
    add_run(essays, "fine", dataset="words", train={"init_from": "gpt2-xl"})
    jobs = {"write_builtin": 1, "download_gpt2": 1, "prepare": 1, "import_model": 1, "train": 1}
    assert planned(essays, FINE) == jobs


def test_a_missing_initial_directory_stops_only_its_own_run(finetuned: Path) -> None:
    add_run(finetuned, "lost", train={"init_from": "mine/nothing"})
    assert planned(finetuned, EVALUATED) == {}
    (error,) = errors_of(snakemake(finetuned, "-n", "results/lost/metrics.jsonl"))
    assert "runs.lost.train.init_from: mine/nothing: not a model directory" in error


def test_a_model_with_other_tokens_is_refused_before_the_training(finetuned: Path) -> None:
    shutil.copytree(finetuned / "results/one/model", finetuned / "mine/base")
    (finetuned / "mine/base/tokenizer.json").write_text('{"type": "char", "vocabulary": "abc"}')
    add_run(finetuned, "fine", train={"init_from": "mine/base"})
    (error,) = errors_of(snakemake(finetuned, FINE))
    assert "runs.fine.train.init_from: mine/base: its vocabulary (3 tokens) isn't" in error
    assert not (finetuned / FINE).exists()


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set: Tiny Shakespeare isn't here")
def test_the_shipped_example_starts_from_the_shipped_run(tmp_path: Path) -> None:
    project = tmp_path / "checkout"
    copy_checkout(project)
    shutil.copy(PROJECT / "config.yaml", project)
    few = "train={max_iters: 4, eval_interval: 4, eval_iters: 1}"
    target = "results/shakespeare_finetuned/metrics.jsonl"
    make(project, target, "--config", few, NANOGPT_MIRROR=MIRROR)
    assert planned(project, target, "--config", few) == {}
    manifest = (project / "results/shakespeare_finetuned/train.manifest.json").read_text()
    assert "results/playwright_pretrained/model/model.safetensors" in json.loads(manifest)["inputs"]


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set: GPT-2's merges aren't here")
def test_a_gpt2_from_a_mirror_is_trained_with_a_shorter_window(
    essays: Path, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(MIRROR, mirror)
    theirs = mirror / "huggingface.co/openai-community/gpt2/resolve/main"
    settings = model_of_source(Source("gpt2", theirs), "fine")
    config = config_for_hugging_face(settings, 50_257)
    theirs.mkdir(parents=True)
    (theirs / "config.json").write_text(json.dumps(config))
    weights = weights_for_hugging_face(GPT(settings, 50_257).state_dict(), settings)
    save_file(weights, theirs / "model.safetensors")
    setting("datasets", "words", value={"corpus": "play", "tokenizer": "gpt2"})(essays)
    train = {"init_from": "gpt2", "max_iters": 1, "batch_size": 1, "eval_iters": 1}
    add_run(essays, "fine", dataset="words", model={"block_size": 16}, train=train)
    make(essays, FINE, NANOGPT_MIRROR=str(mirror))
    assert first_loss(essays, "fine") == pytest.approx(math.log(50_257), abs=1)
    digests = json.loads((essays / "resources/models/gpt2/digests.json").read_text())["sha256"]
    assert digests.keys() == {"config.json", "model.safetensors"}
    assert planned(essays, FINE) == {}
