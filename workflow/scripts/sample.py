"""Rule sample: a model in, samples.txt out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.schema import SampleSettings
from nanogpt.inference.sampling import sample


def make(job: Job) -> Made:
    summary = sample(
        job.text("name"),
        Path(snakemake.input.weights).parent,
        job.settings("sample", SampleSettings),
        Path(snakemake.output.samples),
        next(map(Path, snakemake.input.ngrams), None),
    )
    return Made(summary)


run_stage(snakemake, "sample", make)
