"""Rule count: a group of a corpus' files in, what the first pass over them finds out."""

from pathlib import Path

from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import find_texts, load
from nanogpt.config.resolving import find_dataset
from nanogpt.data.preparing import count
from nanogpt.files.atomic import write_json

with logged(snakemake, "count"):
    corpus, _ = find_dataset(load(snakemake.config, find_texts()), snakemake.wildcards.dataset)
    counts = count(list(map(Path, snakemake.input.corpus)), corpus, snakemake.threads)
    write_json(snakemake.output.counts, counts)
    n_files, n_characters = len(counts["files"]), counts["n_characters"]
    say(f"count {snakemake.wildcards.dataset}: {n_files} files, {n_characters:,} characters")
