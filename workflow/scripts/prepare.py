"""Rule prepare: a corpus, or the files of its groups, in; token files out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.loading import load_dataset
from nanogpt.data.preparing import check_sha256, prepare

given, name, threads = snakemake.input, snakemake.wildcards.dataset, snakemake.threads


def make(_: Job) -> Made:
    files, directory = list(map(Path, given.corpus)), Path(snakemake.output.meta).parent
    tokenizer, plan = (next(iter(names), None) for names in (given.tokenizer, given.planned))
    more = {"tokenizer_file": tokenizer, "plan_file": plan, "threads": threads}
    return Made(prepare(files, *load_dataset(snakemake.config, name), directory, **more))


def check(digests: dict[str, str]) -> None:
    of_corpus = {path: digests[path] for path in given.corpus}
    check_sha256(of_corpus, load_dataset(snakemake.config, name)[0])


inputs = [*given.corpus, *given.tokenizer]  # many files are joined from parts, not cached
run_stage(snakemake, "prepare", make, check=check, inputs=inputs, cached=not given.planned)
