"""Rule download_gpt2: GPT-2's merges from a mirror or their URL, its tokenizer out."""

from pathlib import Path

from nanogpt.config import load
from nanogpt.download import fetch, mirrors
from nanogpt.stage import stage
from nanogpt.tokenizer import GPT2_MERGES_SHA256, GPT2_MERGES_URL, gpt2_tokenizer

with stage(snakemake):
    merges = Path(snakemake.output.merges)
    sources = mirrors(load(snakemake.config).mirrors)
    fetch(GPT2_MERGES_URL, merges, sha256=GPT2_MERGES_SHA256, mirrors=sources)
    gpt2_tokenizer(merges).save(snakemake.output.tokenizer)
