"""Rule ngram: a dataset in, ngram.json out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.ngram.counting import measure, summary


def make(_: Job) -> Made:
    return Made(summary(measure(Path(snakemake.input.meta).parent, snakemake.output.ngram)))


run_stage(snakemake, "ngram", make)
