"""Rule download: a URL in, a checked file out."""

from pathlib import Path

from nanogpt.config import load
from nanogpt.download import fetch, mirrors
from nanogpt.stage import stage

with stage(snakemake):
    config = load(snakemake.config)
    corpus = config.corpora[snakemake.wildcards.corpus]
    fetch(
        corpus.downloads[snakemake.wildcards.file],
        Path(snakemake.output.text),
        sha256=corpus.sha256,
        mirrors=mirrors(config.mirrors),
    )
