"""Measure what it takes to leave out documents of a dataset.

    python benchmarks/cleaning.py TEXT --documents 1000000

Cuts a text (UTF-8) into documents of 3,000 characters and prints the CPU time of pass 1 for each
way to clean, on one thread. Then prints the memory and CPU time that `plan` needs to choose from
made-up documents: 10 % are exact duplicates, and 20 % near-duplicates of earlier documents.
"""

import argparse
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
from nanogpt.data.cleaning import Cleaner, choose_documents, cleans  # noqa: E402
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
                cleaner = Cleaner(dataset) if cleans(dataset) else None
                start = time.process_time()
                count([path], Corpus(files=[str(path)]), 1, cleaner)
                seconds.append(time.process_time() - start)
            print(f"{name:20} {min(seconds) / len(text.encode()) * MB:7.3f} s per MB")


def measure_choice(n_documents: int) -> None:
    """Print the memory and CPU time to choose from this many documents."""
    random = np.random.default_rng(0)
    for name in ("exact", "near"):
        dataset = Dataset(deduplicate=name)
        table = np.zeros(n_documents, Cleaner(dataset).documents().dtype)
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
        tracemalloc.start()
        start = time.process_time()
        choice = choose_documents([counts], [table], dataset)
        seconds = time.process_time() - start
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert choice
        removed = choice.plan.totals.removed
        print(
            f"{name:8} {n_documents:,} documents: {memory / n_documents:.0f} bytes of memory and "
            f"{seconds / n_documents * MB:.2f} µs each; {table.itemsize} bytes on disk; {removed}"
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
