"""Rule eval: a dataset and a model in, eval.json out."""

from pathlib import Path

from nanogpt.config import EvalSettings
from nanogpt.evaluate import evaluate
from nanogpt.stage import Job, stage


def make(job: Job) -> None:
    evaluate(
        job.settings["name"],
        Path(snakemake.input.meta).parent,
        Path(snakemake.input.weights).parent,
        EvalSettings(**job.settings["eval"]),
        Path(snakemake.output.eval),
    )


stage(snakemake, make)
