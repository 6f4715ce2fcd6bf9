"""Measure how the workflow prepares large corpora, by CPU time and memory.

    python benchmarks/corpora.py small-files             10,000 small text files
    python benchmarks/corpora.py parquet                 1,000 parquet files of 200 rows
    python benchmarks/corpora.py text --megabytes 1000   one text file

For the first two, it prints the time of a dry run and of the preparation, including those of all
jobs, and how long the `plan` rule took. Snakemake runs with `--cores 2`. For a text, it prints the
preparation's time and peak memory at a tenth of the size and at the whole, which shows if memory
grows with it. The corpus and the results are in a temporary directory.
"""

import argparse
import csv
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DATASET = "results/datasets/corpus"
WORDS = [f"word{number}" for number in range(500)]
PREPARE = """
import sys
from pathlib import Path
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.preparing import prepare
text, directory = sys.argv[1:]
prepare([Path(text)], Corpus(files=[text]), Dataset(), Path(directory), threads=2)
"""


def paragraphs(n_bytes: int, seed: int) -> Iterator[str]:
    """Yield made-up lines of about n_bytes in total."""
    source, size = random.Random(seed), 0
    while size < n_bytes:
        line = " ".join(source.choices(WORDS, k=12)) + f" {source.random()}\n"
        size += len(line)
        yield line


def write_small_files(directory: Path, number: int) -> None:
    """Write text files of about 2 KB, 100 in each directory."""
    for n in range(number):
        place = directory / f"{n // 100:03d}"
        place.mkdir(exist_ok=True)
        (place / f"{n:05d}.txt").write_text("".join(paragraphs(2000, n)))


def write_parquet(directory: Path, number: int) -> None:
    """Write parquet files of 200 documents of about 500 bytes."""
    import pyarrow
    from pyarrow import parquet

    for n in range(number):
        lines = list(paragraphs(100_000, n))
        texts = ["".join(lines[i::200]) for i in range(200)]
        parquet.write_table(pyarrow.table({"text": texts}), directory / f"{n:04d}.parquet")


def measure(command: list[str], directory: Path) -> tuple[float, float, float]:
    """Run a command; return its wall seconds, CPU seconds and peak memory in MB."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "NANOGPT_CACHE": "off"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            output.seek(0)
            sys.exit(f"error: {command[:4]} failed:\n{output.read()[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, usage.ru_maxrss * 1024 / 1e6


def prepare_corpus(directory: Path, tokenizer: str) -> None:
    """Plan and prepare the files in directory/corpus with Snakemake, and print the times."""
    (directory / "config.yaml").write_text(
        "corpora: {corpus: {files: corpus}}\n"
        f"datasets: {{corpus: {{tokenizer: {tokenizer}, shards: always}}}}\n"
    )
    target = f"{DATASET}/meta.json"
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
    for what, options in (("dry run", ["-n"]), ("preparation", [])):
        wall, cpu, _ = measure([*snakemake, *options, "--cores", "2", target], directory)
        print(f"{what}: {cpu:.1f} s of CPU time, {wall:.1f} s", flush=True)
    groups = directory / DATASET / "groups"
    with open(groups / "plan.benchmark.tsv", newline="") as file:
        row = next(csv.DictReader(file, delimiter="\t"))
    print(f"rule plan: {row['cpu_time']} s of CPU time, {row['s']} s")
    tables = [path.read_text().splitlines() for path in groups.glob("*/*.benchmark.tsv")]
    largest = max(float(row["max_rss"]) for row in map(next, map(_rows, tables)))
    print(f"{len(tables)} jobs of groups, each with at most {largest:.0f} MiB")


def _rows(table: list[str]) -> Iterator[dict[str, str]]:
    return csv.DictReader(table, delimiter="\t")


def prepare_text(directory: Path, megabytes: int) -> None:
    """Prepare a text of a tenth of the size and one of the whole, and print time and memory."""
    paragraph = "".join(paragraphs(1_000_000, 0)).encode()[:1_000_000]
    for size in (max(1, megabytes // 10), megabytes):
        text = directory / "text.txt"
        with open(text, "wb") as file:
            for _ in range(size):
                file.write(paragraph)
        command = [sys.executable, "-c", PREPARE, str(text), str(directory / "made")]
        wall, cpu, memory = measure(command, directory)
        print(f"{size} MB: {cpu:.1f} s of CPU time, {wall:.1f} s, {memory:.0f} MB", flush=True)


def main() -> None:
    """Write a corpus, prepare it and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", choices=["small-files", "parquet", "text"])
    parser.add_argument("--files", type=int, help="default: 10,000 small files or 1,000 parquet")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--tokenizer", default="char")
    parser.add_argument("--directory", type=Path, help="for temporary files")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as scratch:
        directory = Path(scratch)
        if args.corpus == "text":
            prepare_text(directory, args.megabytes)
            return
        write, number = (
            (write_small_files, 10_000) if args.corpus == "small-files" else (write_parquet, 1000)
        )
        (directory / "corpus").mkdir()
        write(directory / "corpus", args.files or number)
        prepare_corpus(directory, args.tokenizer)


if __name__ == "__main__":
    main()
