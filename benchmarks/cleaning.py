"""Measure what it takes to leave out documents of a dataset.

    python benchmarks/cleaning.py TEXT --documents 1000000

Cuts a text (UTF-8) into documents of 3,000 characters and prints the CPU time of pass 1 for each
way to clean, on one thread. Then prints the memory and CPU time that `plan` needs to choose from
made-up documents: with 10 % exact and 20 % near-duplicates, and in pairs of duplicates, which need
the most memory.
"""

import argparse
import io
import itertools
import json
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.artifacts.records.datasets import FileMeta  # noqa: E402
from nanogpt.artifacts.records.groups import GroupCounts  # noqa: E402
from nanogpt.config.corpora import Corpus, Dataset  # noqa: E402
from nanogpt.data.cleaning import (  # noqa: E402
    CHUNK,
    Cleaner,
    Documents,
    TableFile,
    by_column,
    choose_documents,
    row_type,
)
from nanogpt.data.near_duplicates import Signature  # noqa: E402
from nanogpt.data.preparing import count  # noqa: E402

LENGTH = 3000  # characters of a document
ROUNDS = 3
MB = 1_000_000
FILTERS = {"min_characters": 200, "min_alphabetic_words": 0.8, "max_repeated_lines": 0.2}
WAYS = {
    "nothing": Dataset(),
    "filters": Dataset(**FILTERS),
    "exact": Dataset(deduplicate="exact"),
    "near": Dataset(deduplicate="near"),
    "filters and near": Dataset(deduplicate="near", **FILTERS),
}


def measure_reading(text: str) -> None:
    """Print the CPU time of pass 1."""
    Signature()  # imports the library
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "documents.jsonl"
        starts = range(0, len(text), LENGTH)
        lines = (json.dumps({"text": text[start : start + LENGTH]}) + "\n" for start in starts)
        path.write_text("".join(lines))
        for name, dataset in WAYS.items():
            seconds = []
            for _ in range(ROUNDS):
                cleaner = Cleaner(dataset, io.BytesIO().write) if dataset.cleans else None
                start = time.process_time()
                count([path], Corpus(files=[str(path)]), 1, cleaner)
                seconds.append(time.process_time() - start)
            print(f"{name:20} {min(seconds) / len(text.encode()) * MB:7.3f} s per MB")


def made_up(n_documents: int, name: str) -> Documents:
    """A table in which 10 % of the documents are copies and, with `near`, 20 % near-duplicates."""
    random = np.random.default_rng(0)
    table = np.zeros(n_documents, row_type(WAYS[name]))
    digests, bands = keys_of(table)
    for field in digests + bands:
        table[field] = random.integers(2**63, size=n_documents)
    source = np.arange(n_documents)
    copies = random.random(n_documents) < 0.1
    source[copies] = (random.random(int(copies.sum())) * np.flatnonzero(copies)).astype(int)
    table = table[source]
    if name == "near":
        near = np.flatnonzero(random.random(n_documents) < 0.2)
        others = (random.random(len(near)) * near).astype(int)
        for field in bands[:10]:
            table[field][near] = table[field][others]
        for field in digests:
            table[field][near] = random.integers(2**63, size=len(near))
    return table


def in_pairs(n_documents: int, name: str) -> Documents:
    """A table that needs the most memory: each document has one duplicate, in all its bands."""
    table = np.zeros(n_documents, row_type(WAYS[name]))
    digests, bands = keys_of(table)
    for field in digests + bands:
        table[field] = np.arange(n_documents) // 2
    if name == "near":
        table["digest_0"] = np.arange(n_documents)
    return table


def keys_of(table: Documents) -> tuple[list[str], list[str]]:
    """The columns of digests and of bands."""
    names = table.dtype.names or ()
    digests, bands = ([n for n in names if n.startswith(start)] for start in ("digest_", "band_"))
    return digests, bands


def measure_choice(n_documents: int) -> None:
    """Print the memory and CPU time to choose from this many documents."""
    file = FileMeta(
        path="made-up",
        sha256="",
        encoding="utf-8",
        n_documents=n_documents,
        n_characters=0,
        n_bytes=0,
        hash=None,
    )
    counts = GroupCounts(files=(file,), n_documents=n_documents, n_characters=0, characters="")
    for name, make in itertools.product(("filters", "exact", "near"), (made_up, in_pairs)):
        rows = make(n_documents, name)
        with tempfile.TemporaryFile() as table_file:
            for start in range(0, n_documents, CHUNK):
                table_file.write(by_column(rows[start : start + CHUNK]))
            table = TableFile(table_file, rows.dtype, n_documents)
            tracemalloc.start()
            choice = choose_documents([counts], [table], WAYS[name])
            memory = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            began = time.process_time()
            choose_documents([counts], [table], WAYS[name])
            seconds = time.process_time() - began
        assert choice
        print(
            f"{name:8} {make.__name__:8} {n_documents:,} documents: "
            f"{memory / n_documents:.0f} bytes of memory and {seconds / n_documents * MB:.2f} µs "
            f"each; {rows.itemsize} bytes on disk; {choice.plan.totals.removed}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path, help="a text file")
    parser.add_argument("--documents", type=int, default=1_000_000, help="of the second part")
    args = parser.parse_args()
    measure_reading(args.text.read_text(encoding="utf-8"))
    measure_choice(args.documents)


if __name__ == "__main__":
    main()
