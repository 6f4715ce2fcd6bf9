"""Rule sample: a model in, samples.txt out."""

from pathlib import Path

from nanogpt.config import SampleSettings
from nanogpt.generate import sample
from nanogpt.stage import Job, stage


def make(job: Job) -> dict[str, str]:
    summary = sample(
        job.settings["name"],
        Path(snakemake.input.weights).parent,
        SampleSettings(**job.settings["sample"]),
        Path(snakemake.output.samples),
    )
    return {"summary": summary}


stage(snakemake, make)
