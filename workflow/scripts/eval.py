"""Rule eval: a dataset and a model in, eval.json out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, stage
from nanogpt.config.schema import EvalSettings
from nanogpt.evaluation.evaluate import evaluate, summary


def make(job: Job) -> dict[str, str]:
    result = evaluate(
        job.settings["name"],
        Path(snakemake.input.meta).parent,
        Path(snakemake.input.weights).parent,
        EvalSettings(**job.settings["eval"]),
        Path(snakemake.output.eval),
    )
    return {"summary": summary(result)}


stage(snakemake, make)
