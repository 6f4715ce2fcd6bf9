"""Rule sample: a model in, samples.txt out."""

from pathlib import Path

from nanogpt.config import SampleSettings
from nanogpt.generate import sample
from nanogpt.stage import Job, stage


def make(job: Job) -> None:
    sample(
        job.settings["name"],
        Path(snakemake.input.weights).parent,
        SampleSettings(**job.settings["sample"]),
        Path(snakemake.output.samples),
    )


stage(snakemake, make)
