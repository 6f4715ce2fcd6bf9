"""Compare time and memory of preparing a text with nanoGPT's scripts and tiktoken.

    python benchmarks/prepare.py PATH_OF_A_NANOGPT_CHECKOUT TEXT VOCAB_BPE [--rounds 5]

TEXT is a UTF-8 text, such as Tiny Shakespeare, which is repeated to each size. VOCAB_BPE is the
file of GPT-2's merges; encoder.json must be in the same directory. Each preparation is a separate
process; they take turns. Measures wall time, including the start, and peak resident memory.
nanoGPT's scripts are copied, not changed. The other programs stop at --peer-limit megabytes,
because they keep the text and a list of all tokens in memory. Prints a table of medians and draws
time and memory over size as an SVG.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.data.byte_pairs import GPT2_MERGES_URL  # noqa: E402

OURS = """
import sys
from pathlib import Path
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.preparing import prepare
text, directory, tokenizer, tokenizer_file, threads = sys.argv[1:]
dataset = Dataset(tokenizer=tokenizer)
prepare([Path(text)], Corpus(files=[text]), dataset, Path(directory),
        tokenizer_file=tokenizer_file or None, threads=int(threads))
"""

TIKTOKEN = """
import sys
import numpy as np
import tiktoken
data = open(sys.argv[1], encoding="utf-8").read()
ids = tiktoken.get_encoding("gpt2").encode_ordinary(data)
np.array(ids, dtype=np.uint16).tofile(sys.argv[2] + "/tokens.bin")
"""

MB = 1_000_000


class Measured(NamedTuple):
    """One preparation: wall seconds and peak resident memory in MB."""

    seconds: float
    megabytes: float


class Preparation(NamedTuple):
    """A program that prepares a text, and its command."""

    name: str
    command: list[str]
    limit: float  # largest text, MB


def measure(command: list[str], environment: dict[str, str]) -> Measured:
    """Run a command and measure it."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {command[:3]} failed with exit code {process.returncode}")
    return Measured(seconds, usage.ru_maxrss * 1024 / MB)


def preparations(directory: Path, args: argparse.Namespace) -> list[Preparation]:
    """All preparations to compare."""
    text = str(directory / "input.txt")
    threads = str(args.threads)
    ours = [sys.executable, "-c", OURS, text, str(directory / "ours")]
    found = [
        Preparation("characters, ours", [*ours, "char", "", threads], args.sizes[-1]),
        Preparation("characters, nanoGPT", _script(directory, "shakespeare_char"), args.peer_limit),
        Preparation("GPT-2, ours", [*ours, "gpt2", str(args.merges), threads], args.sizes[-1]),
        Preparation("GPT-2, nanoGPT", _script(directory, "shakespeare"), args.peer_limit),
        Preparation(
            "GPT-2, tiktoken",
            [sys.executable, "-c", TIKTOKEN, text, str(directory)],
            args.peer_limit,
        ),
        Preparation("byte pairs trained, ours", [*ours, "bpe", "", threads], args.bpe_limit),
    ]
    for name in ("shakespeare_char", "shakespeare"):
        script = directory / name / "prepare.py"
        script.parent.mkdir()
        shutil.copy(args.checkout / "data" / name / "prepare.py", script)
        (script.parent / "input.txt").symlink_to(text)
    return found


def _script(directory: Path, name: str) -> list[str]:
    return [sys.executable, str(directory / name / "prepare.py")]


def main() -> None:
    """Measure all preparations, print a table and draw a plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("merges", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 10, 100, 1000], help="MB")
    parser.add_argument("--peer-limit", type=float, default=100, help="MB")
    parser.add_argument("--bpe-limit", type=float, default=100, help="MB")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path, default=PROJECT / "docs/prepare.svg")
    args = parser.parse_args()
    measured: dict[str, dict[float, list[Measured]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        # tiktoken looks here before it downloads.
        cached = hashlib.sha1(GPT2_MERGES_URL.encode()).hexdigest()
        shutil.copy(args.merges, directory / cached)
        encoder = GPT2_MERGES_URL.replace("vocab.bpe", "encoder.json")
        shutil.copy(
            args.merges.with_name("encoder.json"),
            directory / hashlib.sha1(encoder.encode()).hexdigest(),
        )
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TIKTOKEN_CACHE_DIR": scratch}
        compared = preparations(directory, args)
        for size in args.sizes:
            _write_text(args.text.read_bytes(), int(size * MB), directory / "input.txt")
            for _ in range(args.rounds):
                for name, command, limit in compared:
                    if size <= limit:
                        for made in directory.rglob("*.bin"):
                            made.unlink()  # replacing gigabytes would take time too
                        result = measure(command, environment)
                        measured.setdefault(name, {}).setdefault(size, []).append(result)
                        print(f"{name}, {size:g} MB: {result}", flush=True)
    print("\n".join(_table(measured)))
    _draw(measured, args.plot)


def _write_text(text: bytes, size: int, path: Path) -> None:
    """Write a text repeatedly, cut at the end of a line near `size` bytes."""
    with open(path, "wb") as file:
        while file.tell() + len(text) <= size:
            file.write(text)
        file.write(text[: text.rfind(b"\n", 0, size - file.tell()) + 1])


def _table(measured: dict[str, dict[float, list[Measured]]]) -> Iterator[str]:
    yield "\n| preparation | MB | median, s | min | max | MB/s | peak memory, MB |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, sizes in measured.items():
        for size, rounds in sizes.items():
            seconds = [result.seconds for result in rounds]
            median = statistics.median(seconds)
            memory = statistics.median(result.megabytes for result in rounds)
            yield (
                f"| {name} | {size:g} | {median:.2f} | {min(seconds):.2f} | {max(seconds):.2f} "
                f"| {size / median:.1f} | {memory:.0f} |"
            )


def _draw(measured: dict[str, dict[float, list[Measured]]], path: Path) -> None:
    # Imported late: a child's peak memory is at least that of its parent when it starts.
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "prepare"
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for name, sizes in measured.items():
        kind, _, who = name.rpartition(", ")
        style = {
            "color": {"characters": "C0", "GPT-2": "C1"}.get(kind, "C2"),
            "linestyle": {"ours": "-", "nanoGPT": "--"}.get(who, ":"),
            "marker": "o",
            "label": name,
        }
        for axis, field in zip(axes, Measured._fields, strict=True):
            medians = [statistics.median(getattr(r, field) for r in sizes[size]) for size in sizes]
            axis.loglog(list(sizes), medians, **style)
    for axis, label in zip(axes, ("wall time, s", "peak resident memory, MB"), strict=True):
        axis.set(xlabel="size of the text, MB", ylabel=label)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
