"""Rule download: a URL in, a checked file out."""

from pathlib import Path

from nanogpt.config import Corpus
from nanogpt.corpus import fetch, mirrors
from nanogpt.stage import stage

with stage(snakemake) as job:
    corpus = Corpus(**job.settings["corpus"])
    fetch(
        corpus.url,
        Path(snakemake.output.text),
        sha256=corpus.sha256,
        mirrors=mirrors(snakemake.config.get("mirrors", [])),
    )
