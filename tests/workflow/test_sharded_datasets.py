"""A sharded dataset is made by jobs that each write a shard, and gives the same results."""

import json
import re
import shutil
from pathlib import Path

import pytest

from nanogpt.planning.stages import SHARDED_FROM
from tests.workflow.projects import (
    ESSAYS,
    GROUP_JOBS,
    edit_config,
    error_of,
    make,
    nanogpt,
    planned,
    replacement,
    results,
    snakemake,
)

DATASET = "results/datasets/parts"
META = f"{DATASET}/meta.json"
SHARD_JOBS = {"count": 3, "plan": 1, "encode_shard": 3, "prepare_shards": 1}
RUNS = ("joined", "sharded")


def add_shards(config: dict) -> None:
    """Add a sharded dataset of the essays, and a run on it and on the joined one."""
    config["datasets"]["parts"] = {**config["datasets"]["essays"], "corpus": "essays"}
    config["datasets"]["parts"]["shards"] = "always"
    config["runs"]["joined"] = {"dataset": "essays"}
    config["runs"]["sharded"] = {"dataset": "parts"}


def without_names(result: bytes) -> dict:
    content = json.loads(result)
    return {name: value for name, value in content.items() if name not in ("run", "dataset")}


def test_a_large_corpus_of_several_local_files_is_sharded(essays: Path) -> None:
    directory = essays / "large"
    directory.mkdir()
    for number in range(2):
        with open(directory / f"{number}.txt", "wb") as file:
            file.truncate(SHARDED_FROM // 2 - number)  # takes no space on disk
    edit_config(essays, lambda c: c["corpora"].update(large={"files": "large"}))
    edit_config(essays, lambda c: c["datasets"].update(large={}))
    target = "results/datasets/large/meta.json"
    joined = {"count": 2, "plan": 1, "encode": 2, "prepare": 1}
    assert planned(essays, target) == joined
    (directory / "3.txt").write_text("enough for 16 GiB")
    sharded = {"count": 2, "plan": 1, "encode_shard": 2, "prepare_shards": 1}
    assert planned(essays, target) == {**sharded, "count": 3, "encode_shard": 3}
    edit_config(essays, lambda c: c["datasets"].update(large={"shards": "never"}))
    assert planned(essays, target) == {**joined, "count": 3, "encode": 3}
    edit_config(essays, lambda c: c["corpora"].update(large={"files": "large/0.txt"}))
    edit_config(essays, lambda c: c["datasets"].update(large={"shards": "always"}))
    assert planned(essays, target) == {"prepare": 1}, "one file is never sharded"


def test_the_files_of_other_datasets_are_not_looked_for(essays: Path) -> None:
    """A corpus can be a directory with a million files."""
    edit_config(essays, lambda c: c["corpora"].update(large={"files": "large"}))
    edit_config(essays, lambda c: c["datasets"].update(large={"shards": "always"}))
    first = "    if corpus.builtin:\n"
    refuse = '    assert name != "large", "looked at a corpus that is not needed"\n'
    replacement("nanogpt/data/sources.py", first, refuse + first)(essays)
    assert planned(essays, "results/one/eval.json")["train"] == 1
    assert planned(essays, ESSAYS) == GROUP_JOBS
    for name in ("one", "results/one/eval.json", "results/one", "essays"):
        why = nanogpt(essays, "why", name)
        assert why.returncode == 0, why.stderr
    assert "looked at a corpus" in nanogpt(essays, "why", "large").stderr


def test_a_shard_that_the_corpus_does_not_have_is_an_error(essays: Path) -> None:
    edit_config(essays, add_shards)
    assert planned(essays, f"{DATASET}/train.002.bin")["encode_shard"] == 1
    error = error_of(snakemake(essays, "-n", f"{DATASET}/train.003.bin"))
    assert error.startswith("error: datasets.parts: no group 003: its files are in 3 groups; make ")
    for name in ("train.2.bin", "train.0002.bin", "train.bin"):
        run = snakemake(essays, "-n", f"{DATASET}/{name}")
        assert f"No rule to produce {DATASET}/{name}" in run.stdout


def test_only_the_decision_about_shards_makes_a_dataset_again(project: Path) -> None:
    edit_config(project, lambda c: c["datasets"]["essays"].update(shards="never"))
    assert planned(project, ESSAYS) == {}
    assert "up to date" in nanogpt(project, "why", ESSAYS).stdout
    edit_config(project, lambda c: c["datasets"]["essays"].update(shards="always"))
    assert planned(project, ESSAYS) == SHARD_JOBS
    assert "dataset.sharded" in nanogpt(project, "why", ESSAYS).stdout


@pytest.fixture(scope="module")
def made(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a sharded and a joined dataset, and all results of a run on each."""
    project = Path(shutil.copytree(empty_project, tmp_path_factory.mktemp("made") / "checkout"))
    edit_config(project, add_shards)
    assert planned(project, META) == SHARD_JOBS
    evaluations = [f"results/{run}/eval.json" for run in RUNS]
    ngrams = [f"results/datasets/{name}/ngram.json" for name in ("essays", "parts")]
    make(project, "--cores", "3", *evaluations, *ngrams)
    return project


@pytest.mark.slow
def test_sharded_and_joined_datasets_give_the_same_bytes(made: Path) -> None:
    for name in ("model/model.safetensors", "model/config.json"):
        files = [(made / f"results/{run}" / name).read_bytes() for run in RUNS]
        assert files[0] == files[1], name
    for pattern in ("results/{}/eval.json", "results/datasets/{}/ngram.json"):
        names = RUNS if "eval" in pattern else ("essays", "parts")
        one, other = (without_names((made / pattern.format(n)).read_bytes()) for n in names)
        assert one == other, pattern


@pytest.mark.slow
def test_shards_from_different_machines_have_the_bytes_of_one(made: Path, tmp_path: Path) -> None:
    """Two copies of a project, without shared files, write one shard of a dataset each."""
    whole = results(made, f"{DATASET}/*.bin")
    assert len(whole) == 6
    for number in (0, 2):
        machine = tmp_path / str(number)
        shutil.copytree(made, machine, ignore=shutil.ignore_patterns("results", ".snakemake"))
        shard = f"{DATASET}/train.{number:03d}.bin"
        make(machine, shard)
        assert (machine / shard).read_bytes() == whole[shard]
        assert not (machine / f"{DATASET}/train.001.bin").exists()


@pytest.mark.slow
def test_nothing_is_made_again_and_changed_shards_are_found(made: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(made, tmp_path / "checkout"))
    assert planned(project, META, *(f"results/{run}/eval.json" for run in RUNS)) == {}
    why = nanogpt(project, "why", "sharded")
    assert re.search("train sharded +up to date", why.stdout), why.stdout
    assert "up to date" in nanogpt(project, "why", DATASET).stdout
    assert nanogpt(project, "verify", "results/sharded").returncode == 0
    shard = project / f"{DATASET}/train.001.bin"
    shard.write_bytes(shard.read_bytes()[:-2] + b"\0\0")
    verified = nanogpt(project, "verify", "results/sharded")
    assert f"{DATASET}/train.001.bin: wrong sha256" in verified.stdout
    (project / META).unlink()  # as the loader's message says
    assert planned(project, META) == SHARD_JOBS
    edit_config(project, lambda c: c["datasets"]["parts"].update(shards="never"))
    assert planned(project, META) == GROUP_JOBS
