"""Rule tensorboard: metrics in, TensorBoard's event file out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, stage
from nanogpt.report.tensorboard import write_events


def make(_: Job) -> dict[str, str]:
    events = Path(snakemake.output.events)
    return {"summary": write_events(Path(snakemake.input.metrics), events.parent)}


stage(snakemake, make, cached=False)
