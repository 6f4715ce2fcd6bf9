"""Rule count: a group of a corpus' files in, what the first pass over them finds out."""

from pathlib import Path

from nanogpt.config import find_dataset, find_texts, load
from nanogpt.files import write_json
from nanogpt.prepare import count
from nanogpt.stage import logged

with logged(snakemake):
    corpus, _ = find_dataset(load(snakemake.config, find_texts()), snakemake.wildcards.dataset)
    counts = count(list(map(Path, snakemake.input.corpus)), corpus, snakemake.threads)
    write_json(snakemake.output.counts, counts)
