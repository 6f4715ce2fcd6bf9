"""Rule combine: models of several runs in, one model directory for their average out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.model.checkpoints import save_ensemble


def make(_: Job) -> Made:
    members = [Path(weights).parent for weights in snakemake.input.weights]
    return Made(save_ensemble(Path(snakemake.output.weights).parent, members))


run_stage(snakemake, "combine", make)
