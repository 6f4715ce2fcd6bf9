"""Rule download: a URL in, a checked file out."""

from pathlib import Path

from nanogpt.config import load
from nanogpt.download import fetch, mirrors
from nanogpt.stage import Job, stage


def make(_: Job) -> None:
    config = load(snakemake.config)
    corpus = config.corpora[snakemake.wildcards.corpus]
    fetch(
        corpus.downloads[snakemake.wildcards.file],
        Path(snakemake.output.text),
        sha256=corpus.sha256,
        mirrors=mirrors(config.mirrors),
    )


# Not cached: what a URL gives is not a matter of settings.
stage(snakemake, make, cached=False)
