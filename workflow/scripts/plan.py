"""Rule plan: the counts of all groups in, a plan and a tokenizer out."""

from pathlib import Path

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.groups import GroupCounts
from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import load_dataset
from nanogpt.data.preparing import plan_dataset

with logged(snakemake, "plan"):
    name = snakemake.wildcards.dataset
    corpus, dataset = load_dataset(snakemake.config, name)
    counts = [read_record(Path(path), GroupCounts) for path in snakemake.input.counts]
    tokenizer_file = next(iter(snakemake.input.tokenizer), None)
    plan, tokenizer = plan_dataset(counts, corpus, dataset, tokenizer_file, snakemake.threads)
    write_record(Path(snakemake.output.plan), plan)
    tokenizer.save(snakemake.output.tokenizer)
    say(f"plan {name}: {plan.n_documents:,} documents, {tokenizer.vocab_size:,} symbols")
