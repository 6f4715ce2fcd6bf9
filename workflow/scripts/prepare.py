"""Rule prepare: a corpus in, or what the jobs of its groups left, token files out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.loading import find_texts, load
from nanogpt.config.resolving import find_dataset
from nanogpt.data.preparing import check_sha256, prepare

given = snakemake.input
files = [Path(name) for name in given.corpus]
settings = find_dataset(load(snakemake.config, find_texts()), snakemake.wildcards.dataset)
directory, threads = Path(snakemake.output.meta).parent, snakemake.threads
beside = {"tokenizer_file": next(iter(given.tokenizer), None), "threads": threads}


def make(_: Job) -> Made:
    plan_file = next(iter(given.planned), None)
    return Made(prepare(files, *settings, directory, plan_file=plan_file, **beside))


# The parts of many files are there already, and joining them is no more work than a restore.
options = {"inputs": [*given.corpus, *given.tokenizer], "cached": not given.planned}
run_stage(snakemake, "prepare", make, check=lambda: check_sha256(files, settings[0]), **options)
