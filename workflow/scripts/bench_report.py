"""Rule bench_report: metrics, evaluations and samples of runs in, tables and plots out."""

from pathlib import Path

from nanogpt.report import write_report
from nanogpt.stage import Job, stage


def make(_: Job) -> None:
    runs = [Path(metrics).parent for metrics in snakemake.input.metrics]
    write_report(runs, Path(snakemake.output.page).parent)


stage(snakemake, make, cached=False)
