"""Rule encode: a group of a corpus's files in, their tokens out."""

from pathlib import Path

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.groups import GroupCounts, Plan
from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import load_dataset
from nanogpt.data.cleaning import cleans, read_array
from nanogpt.data.pieces import Group
from nanogpt.data.preparing import encode
from nanogpt.data.saved_tokenizers import load_tokenizer

with logged(snakemake, "encode"):
    name, number = snakemake.wildcards.dataset, int(snakemake.wildcards.group)
    counts = read_record(Path(snakemake.input.counts), GroupCounts)
    plan = read_record(Path(snakemake.input.plan), Plan)
    corpus, dataset = load_dataset(snakemake.config, name)
    kept = read_array(Path(snakemake.input.kept)) if cleans(dataset) else None
    group = Group(counts, plan, number, corpus, dataset, kept)
    tokenizer = load_tokenizer(snakemake.input.tokenizer)
    totals_file = Path(snakemake.output.totals)
    totals = encode(group, tokenizer, totals_file.parent, snakemake.threads)
    write_record(totals_file, totals)
    say(f"encode {name}: {totals.train.n_tokens:,} of train, {totals.val.n_tokens:,} of val")
