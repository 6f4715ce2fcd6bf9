"""Commands say which trainings they run first, without reading texts or results elsewhere."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from nanogpt.config.loading import read
from nanogpt.files.atomic import write_text
from nanogpt.planning.announcing import announce_trainings
from nanogpt.planning.explaining import find_targets
from nanogpt.planning.stage_code import current_code
from nanogpt.planning.stages import inputs_of, params_of, settings_of
from nanogpt.planning.staleness import Workflow
from nanogpt.project import HERE
from tests.made_runs import write_manifest

TARGET = "results/book/eval.json"
NOT_TRAINED = "book: not trained yet; training it first\n"


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("{corpora: {book: {files: book.txt}}, datasets: {book: {}}}")
    Path("book.txt").write_text("A book.\n")


def finish() -> None:
    """Write the target and everything upstream, as if Snakemake had made it."""
    workflow = Workflow(read(HERE.config_file), HERE)
    for verdict in workflow.plan(*find_targets(workflow, TARGET)[1:]):
        job = verdict.job
        inputs = inputs_of(workflow.config, job, workflow.sharded)
        code = current_code(job.stage)
        for path in job.outputs:
            write_text(Path(path), "")
        write_manifest(
            Path(job.directory),
            job.stage,
            dict.fromkeys(inputs, "0" * 64),
            settings_of(workflow.config, job, workflow.sharded),
            {},
        )
        record = {
            "record_format_version": 6,
            "rule": job.stage,
            "params": sorted(params_of(workflow.config, job, code, workflow.sharded)),
            "input": inputs,
        }
        for path in job.outputs:
            name = urlsafe_b64encode(path.encode()).decode()
            write_text(HERE.rule_records / name, json.dumps(record))


def test_a_finished_run_is_not_announced_and_its_text_is_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish()
    digest_of = Workflow.digest_of

    def refuse_text(workflow: Workflow, path: str) -> str:
        assert path != "book.txt"
        return digest_of(workflow, path)

    monkeypatch.setattr(Workflow, "digest_of", refuse_text)
    announce_trainings(read(HERE.config_file), [TARGET])
    assert capsys.readouterr().err == ""
    Path("config.yaml").write_text(
        "{corpora: {book: {files: book.txt}}, datasets: {book: {}}, train: {seed: 2}}"
    )
    announce_trainings(read(HERE.config_file), [TARGET])
    assert capsys.readouterr().err.startswith("book: out of date (")


@pytest.mark.parametrize(
    ("profile", "announced"),
    [
        ("default-storage-provider: s3", ""),
        ("default-storage-provider: none", NOT_TRAINED),
        ("printshellcmds: false", NOT_TRAINED),
        ("", NOT_TRAINED),
        ("[", NOT_TRAINED),
    ],
)
def test_nothing_is_announced_if_results_are_in_a_storage(
    profile: str, announced: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(Path("profiles/default/config.yaml"), profile)
    announce_trainings(read(HERE.config_file), [TARGET])
    assert capsys.readouterr().err == announced
