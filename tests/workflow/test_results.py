"""One command computes everything, the results verify, and a rerun gives the same bytes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.checkouts import MIRROR, PROJECT
from tests.workflow.projects import (
    ALL_RULES,
    PAGE,
    make,
    nanogpt,
    planned,
    results,
    snakemake,
)


def test_one_command_makes_samples_evaluations_and_the_report(done_project: Path) -> None:
    samples = (done_project / "results/one/samples.txt").read_text()
    assert samples.startswith("# 2 samples of one\n")
    evaluation = json.loads((done_project / "results/one/eval.json").read_text())
    assert evaluation["val"]["n_tokens"] == 1999
    assert evaluation["source"]["excess_percent"] > 0
    page = (done_project / PAGE).read_text()
    assert "one" in page
    assert "two" in page
    assert not list(done_project.glob(".nanogpt/state/*")), "a finished training leaves no state"


def test_every_stage_leaves_a_valid_manifest(done_project: Path) -> None:
    stages = {
        json.loads(path.read_text())["stage"] for path in done_project.rglob("*.manifest.json")
    }
    assert stages == ALL_RULES | {"write_builtin", "download"} | (
        {"download_gpt2"} if MIRROR else set()
    )
    verified = nanogpt(done_project, "verify")
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.endswith(" 0 problems\n")


def test_a_second_call_of_the_workflow_has_nothing_to_do(project: Path) -> None:
    run = make(project)
    assert "Nothing to be done" in run.stdout + run.stderr


def test_the_same_config_gives_the_same_bytes_again(project: Path) -> None:
    kept = ("results/one/model/*", "results/one/eval.json", "results/one/samples.txt")
    kept += ("results/datasets/play/*.bin", "resources/corpora/play/input.txt")
    before = results(project, *kept)
    metrics = project / "results/one/metrics.jsonl"
    curves = without_times(metrics)
    for name in ("results", "resources/corpora"):
        shutil.rmtree(project / name)
    make(project, "results/one/samples.txt", "results/one/eval.json")
    assert results(project, *kept) == before
    assert without_times(metrics) == curves


def without_times(metrics: Path) -> list[dict]:
    """Return the lines of metrics without the parts that depend on the machine's speed."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def test_a_dry_run_imports_neither_torch_nor_records(done_project: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "-n"]
    run = subprocess.run(command, cwd=done_project, capture_output=True, text=True)
    assert run.returncode == 0
    imported = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert "nanogpt.config.loading" in imported
    assert not imported & {"torch", "matplotlib", "httpx"}
    assert not {name for name in imported if name.startswith("nanogpt.artifacts.records")}


def test_the_report_is_made_again_without_training(done_project: Path) -> None:
    assert planned(done_project, "--forcerun", "bench_report", "--", PAGE) == {"bench_report": 1}


def test_all_benchmarks_of_the_report_can_be_requested(done_project: Path) -> None:
    jobs = planned(done_project, "--forcerun", "bench", "--", "benches")
    assert jobs == {"bench": 1, "benches": 1}


def test_each_rule_prints_a_one_line_summary(project: Path) -> None:
    (project / "results/one/samples.txt").unlink()
    run = make(project, "results/one/samples.txt")
    assert "\nsample one: 2 samples, 80 tokens\n" in run.stderr


def test_snakemakes_own_report_has_every_result_with_its_caption(project: Path) -> None:
    run = snakemake(project, "--report", "results/report/workflow.html")
    assert run.returncode == 0, run.stderr
    page = (project / "results/report/workflow.html").read_text()
    captions = sorted((PROJECT / "workflow/report").glob("*.rst"))
    assert len(captions) == 15
    for caption in captions:
        words = re.sub(r"``|\{\{.*?\}\}", "\0", caption.read_text()).partition("\0")[0]
        assert " ".join(words.split())[:40] in " ".join(page.split()), caption.name
