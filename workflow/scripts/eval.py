"""Rule eval: a dataset and a model in, eval.json out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.schema import EvalSettings
from nanogpt.evaluation.evaluate import evaluate, summary


def make(job: Job) -> Made:
    result = evaluate(
        job.text("name"),
        Path(snakemake.input.meta).parent,
        Path(snakemake.input.weights).parent,
        job.settings("eval", EvalSettings),
        Path(snakemake.output.eval),
        next(map(Path, snakemake.input.ngrams), None),
    )
    return Made(summary(result))


run_stage(snakemake, "eval", make)
