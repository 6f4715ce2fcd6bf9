"""Rule import_model: another program's model in, a nanogpt model directory out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.loading import find_texts, load
from nanogpt.interchange.initial_models import import_model


def make(job: Job) -> Made:
    directory = Path(snakemake.output.weights).parent
    config = load(snakemake.config, find_texts())
    return Made(import_model(job.text("source"), directory, config.mirrors))


# Not cached, because it's as quick to make as to copy.
run_stage(snakemake, "import_model", make, cached=False)
