"""Rule bench: a dataset in, bench.json out. It trains a model of its own."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, stage
from nanogpt.config.schema import BenchSettings, ModelSettings, SampleSettings, TrainSettings
from nanogpt.evaluation.benchmark import bench, summary


def make(job: Job) -> dict[str, str]:
    result = bench(
        job.settings["name"],
        Path(snakemake.input.meta).parent,
        ModelSettings(**job.settings["model"]),
        TrainSettings(**job.settings["train"]),
        BenchSettings(**job.settings["bench"]),
        SampleSettings(**job.settings["sample"]),
        Path(snakemake.output.bench),
        threads=min(snakemake.threads, snakemake.params.train_threads),
    )
    return {"summary": summary(result)}


stage(snakemake, make, cached=False)
