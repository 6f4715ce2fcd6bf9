"""Rule download_gpt2: a mirror or URL in, GPT-2's merges out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.loading import find_texts, load
from nanogpt.data.byte_pairs import GPT2_MERGES_SHA256, GPT2_MERGES_URL
from nanogpt.files.downloads import fetch, mirrors


def make(_: Job) -> Made:
    sha256 = fetch(
        GPT2_MERGES_URL,
        Path(snakemake.output.merges),
        sha256=GPT2_MERGES_SHA256,
        mirrors=mirrors(load(snakemake.config, find_texts()).mirrors),
    )
    n_bytes = Path(snakemake.output.merges).stat().st_size
    return Made(f"{n_bytes:,} bytes, sha256 {sha256}")


run_stage(snakemake, "download_gpt2", make, cached=False)
