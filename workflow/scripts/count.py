"""Rule count: a group of a corpus's files in, their counts.json and documents.npy out."""

from pathlib import Path

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import load_dataset
from nanogpt.data.cleaning import Cleaner, cleans, write_array
from nanogpt.data.preparing import count

with logged(snakemake, "count"):
    name = snakemake.wildcards.dataset
    corpus, dataset = load_dataset(snakemake.config, name)
    cleaner = Cleaner(dataset)
    files = list(map(Path, snakemake.input.corpus or snakemake.params.files))
    counts = count(files, corpus, snakemake.threads, cleaner if cleans(dataset) else None)
    write_record(Path(snakemake.output.counts), counts)
    write_array(Path(snakemake.output.documents), cleaner.documents())
    say(f"count {name}: {len(counts.files)} files, {counts.n_characters:,} characters")
