"""Measure what it takes to leave out documents of a dataset.

    python benchmarks/cleaning.py TEXT --documents 1000000

Cuts a text (UTF-8) into documents of 3,000 characters and prints the CPU time of pass 1 for each
way to clean, on one thread. Then prints the memory and CPU time that `plan` needs to choose from
made-up documents: with 10 % exact and 20 % near-duplicates, and in pairs of duplicates, which need
the most memory.
"""

import argparse
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
from nanogpt.data.cleaning import CHUNK, Cleaner, Documents, choose_documents  # noqa: E402
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
                rows: list[Documents] = []
                cleaner = Cleaner(dataset, rows.append) if dataset.cleans else None
                start = time.process_time()
                count([path], Corpus(files=[str(path)]), 1, cleaner)
                seconds.append(time.process_time() - start)
            print(f"{name:20} {min(seconds) / len(text.encode()) * MB:7.3f} s per MB")


def made_up(n_documents: int, name: str) -> Documents:
    """A table in which 10 % of the documents are copies and, with `near`, 20 % near-duplicates."""
    random = np.random.default_rng(0)
    table = empty_table(n_documents, name)
    for field in {"digest", "bands"} & set(table.dtype.names or ()):
        table[field] = random.integers(2**63, size=table[field].shape)
    source = np.arange(n_documents)
    copies = random.random(n_documents) < 0.1
    source[copies] = (random.random(int(copies.sum())) * np.flatnonzero(copies)).astype(int)
    table = table[source]
    if name == "near":
        near = np.flatnonzero(random.random(n_documents) < 0.2)
        others = (random.random(len(near)) * near).astype(int)
        table["bands"][near, :10] = table["bands"][others, :10]
        table["digest"][near] = random.integers(2**63, size=(len(near), 2))
    return table


def in_pairs(n_documents: int, name: str) -> Documents:
    """A table that needs the most memory: each document has one duplicate, in all its bands."""
    table = empty_table(n_documents, name)
    pairs = np.arange(n_documents)[:, None] // 2
    table["digest"] = pairs
    if name == "near":
        table["digest"] = np.arange(2 * n_documents).reshape(-1, 2)
        table["bands"] = pairs
    return table


def empty_table(n_documents: int, name: str) -> Documents:
    """A table of this many documents, all zero."""
    rows: list[Documents] = []
    Cleaner(WAYS[name], rows.append).write_rows()
    return np.zeros(n_documents, rows[0].dtype)


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
        table = make(n_documents, name)
        parts = [table[start : start + CHUNK] for start in range(0, n_documents, CHUNK)]
        tracemalloc.start()
        choice = choose_documents([counts], [parts], WAYS[name])
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        start = time.process_time()
        choose_documents([counts], [parts], WAYS[name])
        seconds = time.process_time() - start
        assert choice
        print(
            f"{name:8} {make.__name__:8} {n_documents:,} documents: "
            f"{memory / n_documents:.0f} bytes of memory and {seconds / n_documents * MB:.2f} µs "
            f"each; {table.itemsize} bytes on disk; {choice.plan.totals.removed}"
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
