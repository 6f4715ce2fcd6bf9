"""Rule ngram: a dataset in, ngram.json out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.ngram.measuring import measure, summary


def make(_: Job) -> Made:
    evaluation = measure(Path(snakemake.input.meta).parent, Path(snakemake.output.ngram))
    return Made(summary(evaluation))


run_stage(snakemake, "ngram", make)
