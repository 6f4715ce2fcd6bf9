"""Rule prepare: a corpus, or the files of its groups, in; token files out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.loading import load_dataset
from nanogpt.data.joining import counted_digests, shard_digests
from nanogpt.data.preparing import check_sha256, prepare

given, output, name = snakemake.input, snakemake.output, snakemake.wildcards.dataset


def make(_: Job) -> Made:
    files, directory = list(map(Path, given.corpus)), Path(output.meta).parent
    tokenizer, plan = (next(iter(names), None) for names in (given.tokenizer, given.planned))
    earlier = {"tokenizer_file": tokenizer, "plan_file": plan, "sharded": not output.get("train")}
    source = load_dataset(snakemake.config, name)
    summary = prepare(files, *source, directory, threads=snakemake.threads, **earlier)
    return Made(summary, made_before=shard_digests(directory))


def check(found: dict[str, str]) -> None:
    check_sha256({f: found[f] for f in given.corpus}, load_dataset(snakemake.config, name)[0])


digests = {"check": check, "known": lambda: counted_digests(given.counts)}
inputs = [*given.corpus, *given.tokenizer]  # many files are joined from parts, not cached
run_stage(snakemake, "prepare", make, inputs=inputs, cached=not given.planned, **digests)
