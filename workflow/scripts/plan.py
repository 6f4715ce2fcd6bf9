"""Rule plan: the counts and documents of all groups in, a plan and a tokenizer out."""

from pathlib import Path

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.groups import GroupCounts
from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import load_dataset
from nanogpt.data.cleaning import ALL, choose_documents, table_files, write_choice
from nanogpt.data.preparing import plan_dataset
from nanogpt.errors import plural

with logged(snakemake, "plan"):
    name, given = snakemake.wildcards.dataset, snakemake.input
    corpus, dataset = load_dataset(snakemake.config, name)
    counts = [read_record(Path(path), GroupCounts) for path in given.counts]
    choice = choose_documents(counts, table_files(given.documents, counts, dataset), dataset)
    write_choice(Path(snakemake.output.kept), choice.kept if choice else ALL)
    file = next(iter(given.tokenizer), None)
    plan, tokenizer = plan_dataset(counts, corpus, dataset, file, snakemake.threads, choice)
    write_record(Path(snakemake.output.plan), plan)
    tokenizer.save(snakemake.output.tokenizer)
    documents = plural(plan.n_documents, "document")
    say(f"plan {name}: {documents}, {tokenizer.vocab_size:,} symbols")
