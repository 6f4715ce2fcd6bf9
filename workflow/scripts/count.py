"""Rule count: a group of a corpus's files in, their counts.json and documents.bin out."""

from pathlib import Path

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.stages import logged, say
from nanogpt.config.loading import load_dataset
from nanogpt.data.cleaning import Cleaner
from nanogpt.data.preparing import count
from nanogpt.errors import plural
from nanogpt.files.atomic import atomic_write

with logged(snakemake, "count"):
    name = snakemake.wildcards.dataset
    corpus, dataset = load_dataset(snakemake.config, name)
    files = list(map(Path, snakemake.input.corpus or snakemake.params.files))
    with atomic_write(snakemake.output.documents) as table:
        cleaner = Cleaner(dataset, table.write)
        counts = count(files, corpus, snakemake.threads, cleaner if dataset.cleans else None)
    write_record(Path(snakemake.output.counts), counts)
    n_files, n_characters = len(counts.files), counts.n_characters
    group = f"count {name}, group {snakemake.wildcards.group}"
    say(f"{group}: {plural(n_files, 'file')}, {plural(n_characters, 'character')}")
