"""Rule ngram: a dataset in, ngram.json out."""

from pathlib import Path

from nanogpt.ngram import measure, summary
from nanogpt.stage import Job, stage


def make(_: Job) -> dict[str, str]:
    return {"summary": summary(measure(Path(snakemake.input.meta).parent, snakemake.output.ngram))}


stage(snakemake, make)
