"""Rule count: a group of a corpus's files in, their counts.json out."""

from pathlib import Path

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import load_dataset
from nanogpt.data.preparing import count

with logged(snakemake, "count"):
    name = snakemake.wildcards.dataset
    corpus, _ = load_dataset(snakemake.config, name)
    files = snakemake.input.corpus or snakemake.params.files
    counts = count(list(map(Path, files)), corpus, snakemake.threads)
    write_record(Path(snakemake.output.counts), counts)
    say(f"count {name}: {len(counts.files)} files, {counts.n_characters:,} characters")
