"""Rule encode: a group of a corpus' files in, their tokens out."""

from pathlib import Path

from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import find_texts, load
from nanogpt.config.resolving import find_dataset
from nanogpt.data.preparing import encode
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.files.atomic import read_json, write_json

with logged(snakemake, "encode"):
    name = snakemake.wildcards.dataset
    corpus, dataset = find_dataset(load(snakemake.config, find_texts()), name)
    totals = encode(
        read_json(snakemake.input.counts),
        read_json(snakemake.input.plan),
        int(snakemake.wildcards.group),
        load_tokenizer(snakemake.input.tokenizer),
        corpus,
        dataset,
        Path(snakemake.output.totals).parent,
        snakemake.threads,
    )
    write_json(snakemake.output.totals, totals)
    say(f"encode {name}: " + ", ".join(f"{n['n_tokens']:,} of {s}" for s, n in totals.items()))
