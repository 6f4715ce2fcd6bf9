"""Rule prepare: a corpus in, or what the jobs of its groups left, token files out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.loading import find_texts, load
from nanogpt.config.resolving import find_dataset
from nanogpt.data.preparing import prepare


def make(_: Job) -> Made:
    summary = prepare(
        list(map(Path, snakemake.input.corpus)),
        *find_dataset(load(snakemake.config, find_texts()), snakemake.wildcards.dataset),
        Path(snakemake.output.meta).parent,
        tokenizer_file=next(iter(snakemake.input.tokenizer), None),
        plan_file=next(iter(snakemake.input.planned), None),
        threads=snakemake.threads,
    )
    return Made(summary)


# The parts of many files are there already, and joining them is no more work than a restore.
inputs = [*snakemake.input.corpus, *snakemake.input.tokenizer]
run_stage(snakemake, "prepare", make, inputs=inputs, cached=not snakemake.input.planned)
