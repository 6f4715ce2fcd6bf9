"""Rule plan: the counts of all groups in, a plan and a tokenizer out."""

from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import find_texts, load
from nanogpt.config.resolving import find_dataset
from nanogpt.data.preparing import merge
from nanogpt.files.atomic import read_json, write_json

with logged(snakemake, "plan"):
    corpus, dataset = find_dataset(
        load(snakemake.config, find_texts()), snakemake.wildcards.dataset
    )
    counts = list(map(read_json, snakemake.input.counts))
    given = next(iter(snakemake.input.tokenizer), None)
    plan, tokenizer = merge(counts, corpus, dataset, given, snakemake.threads)
    write_json(snakemake.output.plan, plan)
    tokenizer.save(snakemake.output.tokenizer)
    n_documents, n_tokens = plan["n_documents"], tokenizer.vocab_size
    say(f"plan {snakemake.wildcards.dataset}: {n_documents:,} documents, {n_tokens:,} symbols")
