"""Rule encode: a group of a corpus's files in, their tokens out."""

from pathlib import Path

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.groups import GroupCounts, Plan
from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import load_dataset
from nanogpt.data.cleaning import read_choice
from nanogpt.data.pieces import Group
from nanogpt.data.preparing import encode
from nanogpt.data.saved_tokenizers import load_tokenizer

with logged(snakemake, "encode"):
    wildcards, given = snakemake.wildcards, snakemake.input
    name, number, kept = wildcards.dataset, int(wildcards.group), read_choice(given.kept)
    counts = read_record(Path(given.counts), GroupCounts)
    plan = read_record(Path(given.plan), Plan)
    group = Group(counts, plan, number, *load_dataset(snakemake.config, name), kept)
    tokenizer = load_tokenizer(given.tokenizer)
    totals_file = Path(snakemake.output.totals)
    directory = Path(snakemake.output.train).parent
    shard = None if directory == totals_file.parent else number
    totals = encode(group, tokenizer, directory, snakemake.threads, shard)
    write_record(totals_file, totals)
    tokens = f"{totals.train.n_tokens:,} training tokens, {totals.val.n_tokens:,} validation tokens"
    say(f"encode {name}, group {wildcards.group}: {tokens}")
