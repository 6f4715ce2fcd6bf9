"""Rule tensorboard: metrics in, TensorBoard's event file out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.report.tensorboard import write_events


def make(_: Job) -> Made:
    events = Path(snakemake.output.events)
    return Made(write_events(Path(snakemake.input.metrics), events.parent))


run_stage(snakemake, "tensorboard", make, cached=False)
