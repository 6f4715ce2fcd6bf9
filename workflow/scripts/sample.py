"""Rule sample: a model in, samples.txt out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, stage
from nanogpt.config.schema import SampleSettings
from nanogpt.inference.sampling import sample


def make(job: Job) -> dict[str, str]:
    summary = sample(
        job.settings["name"],
        Path(snakemake.input.weights).parent,
        SampleSettings(**job.settings["sample"]),
        Path(snakemake.output.samples),
    )
    return {"summary": summary}


stage(snakemake, make)
