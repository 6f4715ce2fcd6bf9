"""Rule bench: a dataset in, bench.json out. It trains a model of its own."""

from pathlib import Path

import torch

from nanogpt.bench import bench
from nanogpt.config import BenchSettings, ModelSettings, TrainSettings
from nanogpt.stage import Job, stage


def make(job: Job) -> None:
    torch.set_num_threads(snakemake.params.train_threads)
    bench(
        job.settings["name"],
        Path(snakemake.input.meta).parent,
        ModelSettings(**job.settings["model"]),
        TrainSettings(**job.settings["train"]),
        BenchSettings(**job.settings["bench"]),
        Path(snakemake.output.bench),
    )


stage(snakemake, make, cached=False)
