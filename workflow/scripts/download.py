"""Rule download: a URL in, a checked file out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.loading import find_texts, load
from nanogpt.files.downloads import fetch, mirrors


def make(_: Job) -> Made:
    config = load(snakemake.config, find_texts())
    corpus = config.corpora[snakemake.wildcards.corpus]
    sha256 = fetch(
        corpus.downloads[snakemake.wildcards.file],
        Path(snakemake.output.text),
        sha256=corpus.digest_of(snakemake.wildcards.file),
        mirrors=mirrors(config.mirrors),
    )
    n_bytes = Path(snakemake.output.text).stat().st_size
    return Made(f"{n_bytes:,} bytes, sha256 {sha256}")


# Not cached, because a download depends on more than settings.
run_stage(snakemake, "download", make, cached=False)
