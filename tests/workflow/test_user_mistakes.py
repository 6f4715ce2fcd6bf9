"""A user's mistake stops the workflow with one line, before any job starts if possible."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workflow.projects import (
    ESSAYS,
    TEXTS,
    edit_config,
    error_of,
    errors_of,
    nanogpt,
    setting,
    snakemake,
)

SOME_WORDS = b"some words to learn " * 99


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["results/oen/samples.txt"], "no run `oen`; did you mean `one`?"),
        (["results/one/samples.txt", "--config", "train={max_itrs: 3}"], "train.max_itrs"),
        (["results/one/samples.txt", "--config", "train={max_iters: many}"], "train.max_iters"),
        (["results/one/samples.txt", "--config", "model={n_head: 3}"], "not divisible by n_head"),
        (["results/datasets/nosuch/train.bin"], "no dataset `nosuch`"),
    ],
)
def test_a_wrong_target_or_setting_is_found_before_any_job_starts(
    empty_project: Path, arguments: list[str], words: str
) -> None:
    assert words in error_of(snakemake(empty_project, *arguments))
    assert not (empty_project / "results").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("texts/none", "corpora.essays.files: texts/none: no such file"),
        ("workflow/rules", "this directory has no .txt, .md"),
        ("texts/*.text", "texts/*.text: no file matches this pattern"),
        ("../*.txt", "../*.txt: this pattern leaves the project"),
        ("/usr/share/doc/**/*.txt", "leaves the project"),
    ],
)
def test_a_corpus_without_files_is_found_before_any_job_starts(
    essays: Path, files: str, words: str
) -> None:
    edit_config(essays, lambda c: c["corpora"]["essays"].update(files=files))
    assert words in error_of(snakemake(essays, ESSAYS))


def test_braces_in_a_file_name_are_found_before_any_job_starts(essays: Path) -> None:
    (essays / "texts/my éssays/{a}.txt").write_text(TEXTS[0])
    error = error_of(snakemake(essays, ESSAYS))
    assert "{a}.txt" in error
    assert "rename the file" in error


def test_a_text_with_an_invalid_run_name_is_found(essays: Path) -> None:
    (essays / "resources/texts/my book.txt").write_text("It was a bright cold day.\n")
    error = error_of(snakemake(essays, "results/one/samples.txt"))
    assert "my book.txt" in error
    assert "rename the text" in error


def test_a_key_given_twice_is_found(essays: Path) -> None:
    with open(essays / "config.yaml", "a") as file:
        file.write("runs: {three: {dataset: play}}\n")
    assert "`runs` is already in line" in error_of(snakemake(essays, "results/one/samples.txt"))


def test_a_missing_text_is_named(essays: Path) -> None:
    edit_config(essays, lambda c: c["corpora"].update(gone={"files": "nowhere/gone.txt"}))
    edit_config(essays, lambda c: c["datasets"].update(gone={}))
    assert "nowhere/gone.txt" in error_of(snakemake(essays, "results/gone/samples.txt"))


def test_a_bad_file_out_of_many_is_named_in_one_line(essays: Path) -> None:
    (essays / "texts/my éssays/11 é.txt").write_bytes(b"caf\xc3\xa9 " * 99 + b"\xff")
    error = error_of(snakemake(essays, ESSAYS))
    assert "texts/my éssays/11 é.txt" in error
    assert "0xff at offset 594" in error


# Texts and training settings with which a stage must fail, and a part of its error.
FAILURES: dict[str, tuple[bytes, dict[str, object], str]] = {
    "empty": (b"", {}, "empty"),
    "binary": (b"PK\x03\x04\x00\x00\x00binary" * 99, {}, "binary"),
    "undecodable": (b"caf\xc3\xa9 " * 99 + b"\xff", {}, "0xff"),
    "short": (b"thirty characters of some text", {}, "needs at least"),
    "gpu": (SOME_WORDS, {"device": "cuda:99"}, "cuda:99"),
    "wild": (SOME_WORDS, {"learning_rate": 1e30, "min_lr": 1}, "training diverged"),
}


@dataclass(frozen=True)
class Failed:
    """A project whose runs failed in one call, and the error lines."""

    project: Path
    errors: list[str]


@pytest.fixture(scope="module")
def failed(done_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """Write a run for each of the failures, and one whose corpus is on a server that refuses."""
    project = tmp_path_factory.mktemp("failed") / "checkout"
    shutil.copytree(done_project, project)
    for name, (text, train, _) in FAILURES.items():
        (project / f"texts/{name}.txt").write_bytes(text)
        setting("corpora", name, value={"files": f"texts/{name}.txt"})(project)
        setting("datasets", name, value={})(project)
        setting("runs", name, value={"dataset": name, "train": train})(project)
    url = {"url": "http://127.0.0.1:9/corpus.txt", "sha256": "0" * 64}
    setting("corpora", "refused", value=url)(project)
    setting("datasets", "refused", value={})(project)
    targets = [f"results/{name}/samples.txt" for name in ("refused", *FAILURES)]
    # Two cores, because the download waits before it tries again.
    run = snakemake(project, "--cores", "2", "--keep-going", *targets)
    return Failed(project, errors_of(run))


def test_each_failure_is_reported_in_one_line(failed: Failed) -> None:
    assert len(failed.errors) == len(FAILURES) + 1


@pytest.mark.parametrize("what", FAILURES)
def test_a_failed_stage_gives_its_reason_in_one_line(failed: Failed, what: str) -> None:
    *_, words = FAILURES[what]
    assert len([line for line in failed.errors if words in line]) == 1


def test_a_refused_download_suggests_three_ways_out(failed: Failed) -> None:
    (error,) = [line for line in failed.errors if "127.0.0.1:9" in line]
    for way_out in ("NANOGPT_MIRROR", "resources/corpora/refused/corpus.txt", "check the URL"):
        assert way_out in error
    assert not (failed.project / "resources/corpora/refused/corpus.txt").exists()


def test_a_failed_stage_leaves_no_results(failed: Failed) -> None:
    trained = {path.parts[-3] for path in failed.project.glob("results/*/model/*.safetensors")}
    assert trained == {"one", "two", "mixed", "both"}, "the runs that were trained before"
    assert not list(failed.project.glob("results/**/*.tmp"))


def test_a_diverged_training_is_reported_with_its_curve(failed: Failed) -> None:
    assert nanogpt(failed.project, "report").returncode == 0
    report = (failed.project / "results/report/now/report.md").read_text()
    assert "| wild (diverged) |" in report
    assert "- wild (diverged): training diverged: " in report
