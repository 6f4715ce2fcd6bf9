"""Rule download: a URL in, a checked file out."""

from pathlib import Path

from nanogpt.config import load
from nanogpt.corpus import fetch, mirrors
from nanogpt.stage import stage

with stage(snakemake):
    config = load(snakemake.config)
    corpus = config.corpora[snakemake.wildcards.corpus]
    fetch(
        corpus.url,
        Path(snakemake.output.text),
        sha256=corpus.sha256,
        mirrors=mirrors(config.mirrors),
    )
