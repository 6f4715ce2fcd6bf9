"""Rule prepare: a text in, token files out."""

from pathlib import Path

from nanogpt.config import corpus_of, find_texts, load
from nanogpt.dataset import prepare
from nanogpt.stage import stage

with stage(snakemake):
    config, name = load(snakemake.config, find_texts()), snakemake.wildcards.dataset
    prepare(
        Path(snakemake.input.corpus),
        config.corpora[corpus_of(config, name)],
        config.datasets[name],
        Path(snakemake.output.meta).parent,
    )
