"""Rule bench: a dataset in, bench.json out. It trains a model of its own."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, stage
from nanogpt.config import schema as config
from nanogpt.evaluation.benchmark import bench, summary


def make(job: Job) -> dict[str, str]:
    result = bench(
        job.settings["name"],
        Path(snakemake.input.meta).parent,
        config.ModelSettings(**job.settings["model"]),
        config.TrainSettings(**job.settings["train"]),
        config.BenchSettings(**job.settings["bench"]),
        config.SampleSettings(**job.settings["sample"]),
        Path(snakemake.output.bench),
        threads=min(snakemake.threads, snakemake.params.train_threads),
    )
    return {"summary": summary(result)}


stage(snakemake, make, cached=False)
