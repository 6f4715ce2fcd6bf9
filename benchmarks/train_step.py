"""Compare a training step of GPT-2's architecture with nanoGPT.

    snakemake --cores 2 results/datasets/{shakespeare_char,shakespeare}/meta.json
    python benchmarks/train_step.py PATH_OF_A_NANOGPT_CHECKOUT [--rounds 5] [--short]

Two shapes: nanoGPT's CPU quick start, and GPT-2 with 124 M parameters and 1,024 tokens of context
(not with --short). Each round trains nanoGPT's model with its own train.py and ours with our
train(), with the same token files, threads and settings. A step is drawing the batch, forward,
backward and optimizer, until the loss is known as a number. Prints the median step of each round,
and a table of medians over the rounds. nanoGPT's checkout is copied, not changed.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.peer import copy_with_data  # noqa: E402
from benchmarks.processes import Timed, run_timed  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402
from nanogpt.config.schema import ModelSettings, TrainSettings  # noqa: E402
from nanogpt.devices import resolve_dtype  # noqa: E402
from nanogpt.project import SPIN_COUNT  # noqa: E402

DATASETS = PROJECT / "results/datasets"


@dataclass(frozen=True)
class Shape:
    """A model and its batches. steps: per round; the first `warm_up` of them don't count."""

    name: str
    dataset: str
    model: ModelSettings
    batch_size: int
    steps: int
    warm_up: int
    device: str = "cpu"

    @property
    def compile(self) -> bool:
        """Whether both programs compile their models, as nanoGPT does by default on a GPU."""
        return self.device != "cpu"


QUICK_START = Shape(
    "nanoGPT's CPU quick start",
    "shakespeare_char",
    resolve_run(read(PROJECT / "config.yaml"), "shakespeare_char_quickstart").model,
    batch_size=12,
    steps=200,
    warm_up=10,
)
GPT2 = Shape(
    "GPT-2 124M",
    "shakespeare",
    ModelSettings(n_layer=12, n_head=12, n_embd=768, block_size=1024, dropout=0.0),
    batch_size=1,
    steps=6,
    warm_up=1,
)

OURS = """
import json, shutil, sys
from pathlib import Path
import torch
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.artifacts.states import TrainingState
from nanogpt.devices import resolve
from nanogpt.training.loop import train
job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
results = Path(job["results"])
shutil.rmtree(results / "state", ignore_errors=True)  # of a disturbed attempt
train("bench", Path(job["dataset"]), ModelSettings(**job["model"]),
      resolve(TrainSettings(**job["train"])), TrainingState(results / "state", "bench"), results)
"""


def run_ours(
    dataset: str, model: ModelSettings, train: TrainSettings, threads: int, results: str
) -> Timed:
    """Train in a new process and time it. results: the directory that it writes to."""
    job = {
        "threads": threads,
        "results": results,
        "dataset": str(DATASETS / dataset),
        "model": model.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
    }
    command = [sys.executable, "-c", OURS, json.dumps(job)]
    return run_timed(command, PROJECT, threads, GOMP_SPINCOUNT=SPIN_COUNT)


def our_steps(shape: Shape, dtype: str, threads: int) -> list[float]:
    """Milliseconds of each of our steps."""
    settings = TrainSettings(
        max_iters=shape.steps,
        lr_decay_iters=shape.steps,
        batch_size=shape.batch_size,
        eval_interval=10**9,
        eval_iters=1,
        log_interval=1,
        keep="last",
        device=shape.device,
        dtype=dtype,
        compile=shape.compile,
    )
    with tempfile.TemporaryDirectory() as results:
        run_ours(shape.dataset, shape.model, settings, threads, results)
        lines = (Path(results) / "metrics.jsonl").read_text().splitlines()
    tokens = shape.batch_size * shape.model.block_size
    return [1e3 * tokens / json.loads(line)["tokens_per_second"] for line in lines[1:]]


def nanogpt_steps(checkout: Path, shape: Shape, threads: int) -> list[float]:
    """Milliseconds of each step of nanoGPT's train.py."""
    model = shape.model
    flags = {
        "dataset": shape.dataset,
        "device": shape.device,
        "compile": shape.compile,
        "eval_iters": 1,
        "eval_interval": 10**9,
        "log_interval": 1,
        "block_size": model.block_size,
        "batch_size": shape.batch_size,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "max_iters": shape.steps,
        "lr_decay_iters": shape.steps,
        "dropout": model.dropout,
    }
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *arguments]
    output = run_timed(command, checkout, threads).output
    return [float(ms) for ms in re.findall(r"^iter \d+: .*time ([\d.]+)ms", output, re.MULTILINE)]


def compare(checkout: Path, shape: Shape, rounds: int, threads: int) -> None:
    """Time both programs in turn and print a table. checkout: a copy with our token files.

    nanoGPT uses float32 on a CPU, and bfloat16 on a GPU that supports it. We do the same, and also
    measure bfloat16 on a CPU that supports it.
    """
    peer_name = "nanoGPT, float32" if shape.device == "cpu" else "nanoGPT, its default"
    measured: dict[str, Callable[[], list[float]]] = {
        peer_name: lambda: nanogpt_steps(checkout, shape, threads),
        "ours, float32": lambda: our_steps(shape, "float32", threads),
    }
    if resolve_dtype("auto", shape.device) == "bfloat16":
        measured["ours, bfloat16"] = lambda: our_steps(shape, "bfloat16", threads)
    medians: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, steps in measured.items():
            median = statistics.median(steps()[shape.warm_up :])
            medians.setdefault(name, []).append(median)
            print(f"{shape.name}: {name}: {median:.1f} ms", flush=True)
    print(f"\n| {shape.name} | median of rounds, ms | min | max | speed vs nanoGPT |")
    print("|---|--:|--:|--:|--:|")
    peer = statistics.median(medians[peer_name])
    for name, times in medians.items():
        median = statistics.median(times)
        print(
            f"| {name} | {median:.1f} | {min(times):.1f} | {max(times):.1f} | {peer / median:.2f} |"
        )
    print(flush=True)


def compare_all(checkout: Path, shapes: list[Shape], rounds: int, threads: int) -> None:
    """Print a table for each shape."""
    data = {shape.dataset: DATASETS / shape.dataset for shape in shapes}
    with tempfile.TemporaryDirectory() as directory:
        copy = copy_with_data(checkout, Path(directory), data)
        for shape in shapes:
            compare(copy, shape, rounds, threads)


def main() -> None:
    """Time both shapes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="leave out GPT-2 124M")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    shapes = [QUICK_START] if arguments.short else [QUICK_START, GPT2]
    compare_all(arguments.checkout, shapes, arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
