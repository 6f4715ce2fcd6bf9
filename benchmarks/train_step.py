"""Time of a training step beside nanoGPT's, on its CPU quick start, in turn on the same machine.

    python benchmarks/train_step.py PATH_OF_A_NANOGPT_CHECKOUT [--rounds 5] [--steps 200]

Each round trains nanoGPT's model with its own train.py and ours with our train(), on the same token
files, threads and settings. A step is drawing the batch, forward, backward and optimizer, until the
loss is known as a number. Prints the median step of each round and the medians of the rounds. The
peer's checkout is copied, not changed. Needs results/datasets/shakespeare_char.
"""

import argparse
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402
from nanogpt.data import batches as dataset  # noqa: E402

DATASET = PROJECT / "results/datasets/shakespeare_char"
RUN = resolve_run(read(PROJECT / "config.yaml"), "shakespeare_char_quickstart")
# The first steps pay for allocations that later ones reuse.
WARM_UP_STEPS = 10

OURS = """
import json, sys
from pathlib import Path
import torch
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.artifacts.states import TrainingState
from nanogpt.training.loop import train
job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
results = Path(job["results"])
train("bench", Path(job["dataset"]), ModelSettings(**job["model"]), TrainSettings(**job["train"]),
      TrainingState(results / "state", "bench"), results)
"""


def our_steps(train: dict, threads: int) -> list[float]:
    """Milliseconds of each step of ours."""
    with tempfile.TemporaryDirectory() as results:
        job = {
            "threads": threads,
            "results": results,
            "dataset": str(DATASET),
            "model": RUN.model.model_dump(),
            "train": train,
        }
        _run([sys.executable, "-c", OURS, json.dumps(job)], threads, PROJECT)
        lines = (Path(results) / "metrics.jsonl").read_text().splitlines()
    tokens = train["batch_size"] * RUN.model.block_size
    return [1e3 * tokens / json.loads(line)["tokens_per_second"] for line in lines[1:]]


def nanogpt_steps(checkout: Path, train: dict, threads: int) -> list[float]:
    """Milliseconds of each step of nanoGPT's train.py."""
    model = RUN.model
    flags = {
        "dataset": "shakespeare_char",
        "device": "cpu",
        "compile": False,
        "eval_iters": 1,
        "eval_interval": 10**9,
        "log_interval": 1,
        "block_size": model.block_size,
        "batch_size": train["batch_size"],
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "max_iters": train["max_iters"],
        "lr_decay_iters": train["max_iters"],
        "dropout": model.dropout,
    }
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *arguments]
    output = _run(command, threads, checkout)
    return [float(ms) for ms in re.findall(r"^iter \d+: .*time ([\d.]+)ms", output, re.MULTILINE)]


def _run(command: list[str], threads: int, directory: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        command, cwd=directory, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def _copy_with_data(checkout: Path, directory: Path) -> Path:
    """A copy of nanoGPT's checkout that has our token files, which are in its format."""
    copy = Path(shutil.copytree(checkout, directory / "nanoGPT"))
    data = copy / "data/shakespeare_char"
    for name in ("train.bin", "val.bin"):
        shutil.copy(DATASET / name, data)
    vocab_size = dataset.load(DATASET).tokenizer.vocab_size
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))
    return copy


def main() -> None:
    """Time both in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    train = {
        **RUN.train.model_dump(),
        "max_iters": arguments.steps,
        "lr_decay_iters": arguments.steps,
        "eval_interval": 10**9,
        "eval_iters": 1,
    }
    medians: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        checkout = _copy_with_data(arguments.checkout, Path(directory))
        measured = {
            "nanoGPT, float32": lambda: nanogpt_steps(checkout, train, arguments.threads),
            "ours, float32": lambda: our_steps(train, arguments.threads),
            "ours, bfloat16": lambda: our_steps({**train, "dtype": "bfloat16"}, arguments.threads),
        }
        for _ in range(arguments.rounds):
            for name, steps in measured.items():
                median = statistics.median(steps()[WARM_UP_STEPS:])
                medians.setdefault(name, []).append(median)
                print(f"{name}: {median:.1f} ms", flush=True)
    print("\n| who | median of rounds, ms | least | most | times nanoGPT's speed |")
    print("|---|---|---|---|---|")
    peer = statistics.median(medians["nanoGPT, float32"])
    for name, rounds in medians.items():
        median = statistics.median(rounds)
        print(
            f"| {name} | {median:.1f} | {min(rounds):.1f} | {max(rounds):.1f} "
            f"| {peer / median:.2f} |"
        )


if __name__ == "__main__":
    main()
