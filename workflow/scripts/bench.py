"""Rule bench: a dataset in, bench.json out. It trains its own model."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.schema import BenchSettings, ModelSettings, SampleSettings, TrainSettings
from nanogpt.evaluation.benchmark import bench, summary


def make(job: Job) -> Made:
    result = bench(
        job.text("name"),
        Path(snakemake.input.meta).parent,
        job.settings("model", ModelSettings),
        job.settings("train", TrainSettings, partial=True),
        job.settings("bench", BenchSettings),
        job.settings("sample", SampleSettings, partial=True),
        Path(snakemake.output.bench),
        threads=min(snakemake.threads, snakemake.params.train_threads),
    )
    return Made(summary(result))


run_stage(snakemake, "bench", make, cached=False)
