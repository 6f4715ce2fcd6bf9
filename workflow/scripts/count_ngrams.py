"""Rule count_ngrams: a dataset in, the n-grams that a run mixes with its GPT out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.schema import NgramSettings
from nanogpt.ngram.counts import count_split


def make(job: Job) -> Made:
    summary = count_split(
        Path(snakemake.input.meta).parent,
        job.settings("ngram", NgramSettings),
        Path(snakemake.output.ngrams),
    )
    return Made(summary)


run_stage(snakemake, "count_ngrams", make)
