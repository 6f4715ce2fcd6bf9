"""Rule ngram: a dataset in, ngram.json out."""

from pathlib import Path

from nanogpt.ngram import measure
from nanogpt.stage import Job, stage


def make(_: Job) -> None:
    measure(Path(snakemake.input.meta).parent, Path(snakemake.output.ngram))


stage(snakemake, make)
