"""Any kind of text works up to the samples; an impossible one is an error before the training."""

import os
import shutil
from pathlib import Path

import pytest

from tests.workflow.projects import error_of, errors_of, make, planned, setting, snakemake

# Texts in resources/texts/ without a line feed, with one letter, or with one kind of line.
TEXTS = {
    "dna": "ACGT" * 1000,
    "letter": "a" * 3000,
    "mac": "to be or not to be\r" * 100,
    "chinese": "村口的老槐树下有一口井" * 100,
}
ROWS = "".join(f'{{"text": "row {n} of them"}}\n' for n in range(120))


@pytest.fixture(scope="module")
def trained(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with samples for each of these texts, and for rows with a bar as separator."""
    project = tmp_path_factory.mktemp("texts") / "checkout"
    shutil.copytree(empty_project, project)
    for name, text in TEXTS.items():
        (project / f"resources/texts/{name}.txt").write_bytes(text.encode())
    (project / "resources/texts/CAPITALS.TXT").write_text("In capitals.\n" * 200)
    (project / "rows.json").write_text(ROWS)
    setting("corpora", "rows", value={"files": "rows.json"})(project)
    setting("datasets", "rows", value={"separator": "|"})(project)
    setting("runs", "endless", value={"dataset": "rows", "sample": {"temperature": 0}})(project)
    names = [*TEXTS, "CAPITALS", "rows", "endless"]
    targets = [f"results/{name}/{file}" for name in names for file in ("samples.txt", "eval.json")]
    make(project, "--keep-going", *targets)
    setting("report", "runs", value=["dna", "letter"])(project)
    report = make(project, "results/report/index.html")
    (project / "report.stderr").write_text(report.stderr)
    return project


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("dna", "'A'"),
        ("letter", "'a'"),
        ("mac", r"'\r'"),
        ("CAPITALS", r"'\n'"),
        ("rows", "'|'"),
        ("endless", "'|'"),
    ],
)
def test_a_sample_starts_like_a_text_of_its_corpus(trained: Path, name: str, start: str) -> None:
    assert f"# start: {start}\n" in (trained / f"results/{name}/samples.txt").read_text()


@pytest.mark.slow
def test_a_report_on_a_loss_of_zero_is_drawn_without_a_warning(trained: Path) -> None:
    assert (trained / "results/report/index.html").exists()
    assert "Warning" not in (trained / "report.stderr").read_text()


@pytest.mark.slow
def test_at_temperature_zero_all_samples_are_the_same(trained: Path) -> None:
    page = (trained / "results/endless/samples.txt").read_text()
    _, first, second = page.split("--- sample ")
    assert first.partition("\n")[2].strip() == second.partition("\n")[2].strip()


def test_a_prompt_outside_the_vocabulary_is_reported_before_the_training(essays: Path) -> None:
    (essays / "resources/texts/dna.txt").write_text(TEXTS["dna"])
    setting("sample", value={"start": "ROMEO:"})(essays)
    error = error_of(snakemake(essays, "results/dna/samples.txt"))
    assert error.startswith("error: runs.dna.sample.start: the tokenizer's vocabulary of 4 char")
    assert not (essays / "results/dna/model").exists()


def test_another_prompt_retrains_nothing(done_project: Path) -> None:
    assert planned(done_project, "results/one/samples.txt", "--config", "sample={start: a}") == {
        "sample": 1
    }


@pytest.mark.parametrize(
    ("start", "words", "flags"),
    [
        ("FILE:nowhere.txt", "nowhere.txt: no such file", ["--quiet"]),
        ("FILE:", "FILE:: no such file", ["-n"]),
        ("FILE:{a}.txt", "{a}.txt: ", []),
    ],
)
def test_an_impossible_prompt_file_is_reported_in_one_line(
    essays: Path, start: str, words: str, flags: list[str]
) -> None:
    (essays / "{b}.txt").write_text("a prompt")
    setting("sample", value={"start": start})(essays)
    errors = errors_of(snakemake(essays, "results/one/samples.txt", *flags))
    assert all(words in error for error in errors)


@pytest.mark.parametrize("flags", [[], ["--quiet"]])
def test_a_name_that_is_not_utf_8_is_reported_in_one_line(essays: Path, flags: list[str]) -> None:
    (essays / "texts/my éssays" / os.fsdecode(b"caf\xe9.txt")).write_text("An essay.\n")
    error = error_of(snakemake(essays, "results/datasets/essays/meta.json", *flags))
    assert "its name isn't UTF-8" in error


def test_a_folder_reports_which_files_were_used_and_which_were_not(essays: Path) -> None:
    (essays / "texts/my éssays/empty.txt").write_text("")
    run = make(essays, "results/datasets/essays/meta.json")
    assert "read 41 files, skipped 1 .html" in run.stderr
    assert "warning: texts/my éssays/empty.txt: no text in it; skipped" in run.stderr
    log = (essays / "results/datasets/essays/prepare.log").read_text()
    assert "skipped 1 .html" in log
    assert '".html": 1' in (essays / "results/datasets/essays/meta.json").read_text()
