"""Rule tensorboard: metrics in, TensorBoard's event file out."""

from pathlib import Path

from nanogpt.report import write_events
from nanogpt.stage import Job, stage


def make(_: Job) -> None:
    write_events(Path(snakemake.input.metrics), Path(snakemake.output.events).parent)


stage(snakemake, make, cached=False)
