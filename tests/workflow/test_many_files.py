"""A corpus of many files is prepared in groups of files, which leave only the dataset."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from nanogpt.planning import needs
from tests.workflow.projects import (
    ESSAYS,
    GROUP_JOBS,
    N_ESSAYS,
    TEXTS,
    edit_config,
    make,
    nanogpt,
    planned,
    results,
    snakemake,
)

RUNTIME = re.compile(r"runtime=(\d+)")
FIRST = "texts/my éssays/00 é.txt"


def test_a_corpus_of_many_files_is_prepared_in_groups(
    empty_project: Path, done_project: Path
) -> None:
    assert planned(empty_project, ESSAYS) == GROUP_JOBS
    meta = json.loads((done_project / ESSAYS).read_text())
    assert len(meta["files"]) == N_ESSAYS
    assert meta["train"]["n_characters"] + meta["val"]["n_characters"] == sum(
        len(TEXTS[number % len(TEXTS)]) for number in range(N_ESSAYS)
    )
    groups = done_project / "results/datasets/essays/groups"
    left = [path.name for path in groups.rglob("*.*")]
    assert left
    assert all(name.endswith((".log", ".benchmark.tsv")) for name in left), "parts are temporary"
    count_log = (groups / "000/count.log").read_text()
    assert re.search(r"INFO count essays, group 000: [\d,]+ files?, [\d,]+ characters$", count_log)
    encode_log = (groups / "000/encode.log").read_text()
    assert re.search(
        r"INFO encode essays, group 000: [\d,]+ training tokens, [\d,]+ validation tokens$",
        encode_log,
    )
    assert planned(done_project, ESSAYS) == {}
    verified = nanogpt(done_project, "verify", "results/datasets/essays")
    assert verified.returncode == 0, verified.stdout


def test_changing_one_of_many_files_is_noticed(project: Path) -> None:
    another = project / "texts/my éssays/zz.txt"
    another.write_text(TEXTS[0])
    assert planned(project, ESSAYS) == GROUP_JOBS
    another.unlink()
    assert planned(project, ESSAYS) == {}
    (project / FIRST).write_text("An essay that is older than all the others.\n")
    os.utime(project / FIRST, (1_000_000_000, 1_000_000_000))
    assert planned(project, ESSAYS) == GROUP_JOBS


def test_changing_the_split_of_many_files_reruns_all_their_jobs(project: Path) -> None:
    edit_config(project, lambda c: c["datasets"]["essays"].update(val_ratio=0.2))
    assert planned(project, ESSAYS) == GROUP_JOBS


@pytest.mark.slow
def test_leftovers_of_an_aborted_call_are_remade_after_a_change(essays: Path) -> None:
    make(essays, "--notemp", "--until", "plan", "--", ESSAYS)
    assert planned(essays, ESSAYS) == {"encode": 3, "prepare": 1}, "finished parts are kept"
    edit_config(essays, lambda c: c["datasets"]["essays"].update(tokenizer="byte"))
    assert planned(essays, ESSAYS) == GROUP_JOBS
    make(essays, ESSAYS)
    assert json.loads((essays / ESSAYS).read_text())["vocab_size"] == 256
    assert planned(essays, ESSAYS) == {}


@pytest.mark.slow
def test_many_small_files_make_few_jobs(essays: Path) -> None:
    directory = essays / "many"
    directory.mkdir()
    for number in range(2048):
        (directory / f"{number}.txt").write_text("a small text\n")
    edit_config(essays, lambda c: c["corpora"].update(many={"files": "many"}))
    edit_config(essays, lambda c: c["datasets"].update(many={}))
    jobs = planned(essays, "results/datasets/many/meta.json")
    assert jobs == {"count": 16, "plan": 1, "encode": 16, "prepare": 1}


def test_jobs_request_time_for_their_files_even_if_those_are_not_inputs(essays: Path) -> None:
    directory = essays / "many"
    directory.mkdir()
    sizes = {"large.txt": 1 << 41, **{f"{number}.txt": 110_000_000 for number in range(271)}}
    for name, size in sizes.items():
        with open(directory / name, "wb") as file:
            file.truncate(size)  # takes no space on disk
    edit_config(essays, lambda c: c["corpora"].update(many={"files": "many"}))
    edit_config(essays, lambda c: c["datasets"].update(many={}))
    target = "results/datasets/many/meta.json"
    jobs = make(essays, "-n", target).stdout.split("\nrule ")
    counts = [job for job in jobs if job.startswith("count:")]
    minutes = {int(n) for job in counts for n in RUNTIME.findall(job)}
    assert minutes == {30 + 19, 30 + round((2**41 + 16 * 110_000_000) / 10**8)}
    (last,) = [job for job in jobs if job.startswith("prepare_shards:")]
    assert "mem_mb=" in last
    assert "runtime" not in last, "it only lists shards"

    for number in range(len(counts)):
        group = essays / f"results/datasets/many/groups/{number:03}"
        group.mkdir(parents=True)
        (group / "counts.json").touch()
        (group / "documents.bin").touch()
    jobs = make(essays, "-n", target).stdout.split("\nrule ")
    (plan,) = [job for job in jobs if job.startswith("plan:")]
    assert RUNTIME.findall(plan) == ["30"], "it reads no texts"


def test_the_number_of_cores_does_not_change_a_datasets_bytes(
    essays: Path, done_project: Path
) -> None:
    files = ("results/datasets/essays/*.bin", "results/datasets/essays/*.json")
    made = dict(results(done_project, *files))
    make(essays, "--cores", "3", ESSAYS)
    again = dict(results(essays, *files))
    for outputs in (made, again):
        del outputs["results/datasets/essays/prepare.manifest.json"]
    assert again == made


def test_duplicates_in_different_groups_are_left_out(essays: Path) -> None:
    setting = {"deduplicate": "near", "min_characters": 10}
    edit_config(essays, lambda c: c["datasets"]["essays"].update(setting))
    (essays / FIRST).write_text("Short.\n")
    make(essays, ESSAYS)
    meta = json.loads((essays / ESSAYS).read_text())
    n_removed = N_ESSAYS - len(TEXTS)
    assert meta["cleaning"]["removed"] == {
        "min_characters": 1,
        "exact_duplicates": n_removed - 1,
        "near_duplicates": 0,
    }
    assert meta["train"]["n_characters"] + meta["val"]["n_characters"] == sum(map(len, TEXTS))
    assert (
        f"left out {n_removed} of {N_ESSAYS} documents"
        in (essays / "results/datasets/essays/prepare.log").read_text()
    )
    assert planned(essays, ESSAYS) == {}


def test_memory_is_requested_for_the_documents_that_were_counted(essays: Path) -> None:
    setting = {"deduplicate": "near"}
    edit_config(essays, lambda c: c["datasets"]["essays"].update(setting))
    groups = essays / "results/datasets/essays/groups"
    n_documents = 3 * 10**7
    for number in range(GROUP_JOBS["count"]):
        directory = groups / f"{number:03}"
        directory.mkdir(parents=True)
        (directory / "counts.json").touch()
        with open(directory / "documents.bin", "wb") as file:  # takes no space on disk
            file.truncate(needs.BYTES_OF_ROW["near"] * n_documents)
    run = snakemake(essays, "-n", ESSAYS)
    requests = re.findall(
        r"^rule (\w+):.*?mem_mb=(\d+|<TBD>)", run.stdout, re.DOTALL | re.MULTILINE
    )
    memory = dict(requests)
    assert memory.keys() == {"plan", "encode", "prepare"}, run.stdout
    of_documents = GROUP_JOBS["count"] * n_documents * needs.BYTES_OF_CHOICE["near"] // 10**6
    assert 0 <= int(memory["plan"]) - 2000 - of_documents <= 100
    assert memory["encode"] == memory["prepare"] == "2000"


def test_a_dataset_can_use_another_datasets_tokenizer(project: Path) -> None:
    other = {"corpus": "play", "tokenizer": "essays"}
    edit_config(project, lambda c: c["datasets"].update(other=other))
    target = "results/datasets/other/tokenizer.json"
    make(project, target)
    made = results(project, "results/datasets/*/tokenizer.json")
    assert made[target] == made["results/datasets/essays/tokenizer.json"]
    shutil.rmtree(project / "results/datasets")
    assert planned(project, target) == {**GROUP_JOBS, "prepare": 2}
