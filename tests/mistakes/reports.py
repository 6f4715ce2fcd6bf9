"""Runs that can't be reported on."""

import json
from collections.abc import Mapping
from pathlib import Path

from nanogpt.config.schema import ModelSettings
from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs
from tests.made_runs import evaluation_of
from tests.mistakes.base import Mistake, write_files

METRICS = '{"step": 0, "tokens": 0, "val_loss": 4.2}\n'


EVALUATION = json.dumps(
    evaluation_of("demo", "letters", 4.2, ModelSettings(n_layer=1), deep=False).content()
)


def report_on(title: str, shown: str, files: Mapping[str, str], message: str) -> Mistake:
    """Report on a run `demo` that has only these files."""

    def make() -> None:
        write_files({f"results/demo/{name}": content for name, content in files.items()})
        write_report(read_runs([Path("results/demo")]), Path("results/report"))

    return Mistake(title, shown, make, message)


REPORTS = [
    Mistake(
        "a report on no runs",
        "`report: {runs: []}`",
        lambda: write_report([], Path("results/report")),
        "no runs to report on; list at least one in `report.runs`, or train one",
    ),
    report_on(
        "a run that wasn't trained",
        "no `metrics.jsonl`",
        {},
        "results/demo/metrics.jsonl: no such file; train the run first",
    ),
    report_on(
        "empty metrics",
        "`metrics.jsonl` with 0 bytes",
        {"metrics.jsonl": ""},
        "results/demo/metrics.jsonl: no metrics in it; train the run first",
    ),
    report_on(
        "a line that isn't metrics",
        "`metrics.jsonl` with a line of text",
        {"metrics.jsonl": "loss 4.2\n" + METRICS},
        "results/demo/metrics.jsonl: line 1: not JSON; delete the file and run the workflow again",
    ),
    report_on(
        "a word for a step",
        '`{"step": "x", "tokens": 0}`',
        {"metrics.jsonl": '{"step": "x", "tokens": 0}\n' + METRICS},
        "results/demo/metrics.jsonl: line 1: damaged: `step` should be a whole number; delete the "
        "file and run the workflow again",
    ),
    report_on(
        "a word for a loss",
        '`{"step": 0, "tokens": 0, "loss": "low"}`',
        {"metrics.jsonl": '{"step": 0, "tokens": 0, "loss": "low"}\n' + METRICS},
        "results/demo/metrics.jsonl: line 1: damaged: `loss` should be a number; delete the file "
        "and run the workflow again",
    ),
    report_on(
        "a run that wasn't evaluated",
        "no `eval.json`",
        {"metrics.jsonl": METRICS},
        "results/demo/eval.json: no such file; evaluate the run first",
    ),
    report_on(
        "a truncated eval.json",
        "`eval.json` cut in half",
        {"metrics.jsonl": METRICS, "eval.json": '{"val": {"lo'},
        "results/demo/eval.json: damaged: not JSON; delete the file and run the workflow again",
    ),
    report_on(
        "an eval.json without results",
        "`{}`",
        {"metrics.jsonl": METRICS, "eval.json": "{}"},
        "results/demo/eval.json: damaged: `run` is missing; delete the file and run the workflow "
        "again",
    ),
    report_on(
        "a truncated training manifest",
        "`train.manifest.json` cut in half",
        {
            "metrics.jsonl": METRICS,
            "eval.json": EVALUATION,
            "train.manifest.json": '{"parameters": {',
        },
        "results/demo/train.manifest.json: damaged: not JSON; delete the file and run the "
        "workflow again",
    ),
    report_on(
        "a bench.json that isn't a benchmark",
        "a list in `bench.json`",
        {"metrics.jsonl": METRICS, "eval.json": EVALUATION, "bench.json": "[]"},
        "results/demo/bench.json: damaged: not a JSON object; delete the file and run the "
        "workflow again",
    ),
]
