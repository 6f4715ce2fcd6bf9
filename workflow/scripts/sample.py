"""Rule sample: a model and its n-grams, if any, in; samples.txt and samples.jsonl out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.schema import SampleSettings
from nanogpt.inference.sampling import sample
from nanogpt.ngram.mixing import find_ngrams

model = Path(snakemake.input.weights).parent


def make(job: Job) -> Made:
    summary = sample(
        job.text("name"),
        model,
        job.settings("sample", SampleSettings),
        Path(snakemake.output.samples),
        find_ngrams(model) if snakemake.input.ngrams else None,
    )
    return Made(summary)


run_stage(snakemake, "sample", make)
