"""Rule ngram: a dataset in, ngram.json out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, stage
from nanogpt.ngram.counting import measure, summary


def make(_: Job) -> dict[str, str]:
    return {"summary": summary(measure(Path(snakemake.input.meta).parent, snakemake.output.ngram))}


stage(snakemake, make)
