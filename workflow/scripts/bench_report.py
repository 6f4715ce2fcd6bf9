"""Rule bench_report: results of runs in, tables and charts out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs


def make(_: Job) -> Made:
    runs = read_runs([Path(metrics).parent for metrics in snakemake.input.metrics])
    return Made(write_report(runs, Path(snakemake.output.page).parent))


run_stage(snakemake, "bench_report", make, cached=False)
