"""Compare the time of an evaluation with that of the training.

    snakemake --cores 2 results/demo/model/model.safetensors
    python benchmarks/evaluation.py demo [RUN ...] [--rounds 3] [--threads 2]

Evaluates trained runs with their own settings, in a temporary directory. Prints the median wall and
CPU seconds of the rounds, the seconds of the training, the evaluation's share of them, and the
start of eval.json's digest. If the wall time is much higher than the CPU time divided by the number
of threads, the machine was busy.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.artifacts.records.metrics import read_metrics  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402
from nanogpt.devices import resolve  # noqa: E402
from nanogpt.evaluation.evaluate import evaluate  # noqa: E402
from nanogpt.files.atomic import sha256_file  # noqa: E402
from nanogpt.project import NGRAMS_FILE, Project  # noqa: E402


def measure(name: str, rounds: int) -> None:
    """Evaluate a run `rounds` times and print one line."""
    run, project = resolve_run(read(PROJECT / "config.yaml"), name), Project(PROJECT)
    directory = project.results / name
    wall, cpu, digests = [], [], set()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "eval.json"
        for _ in range(rounds):
            start, cpu_start = time.perf_counter(), time.process_time()
            dataset = project.datasets / run.dataset
            ngrams = directory / "model" / NGRAMS_FILE if run.ngram else None
            evaluate(name, dataset, directory / "model", resolve(run.eval), path, ngrams)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
            digests.add(sha256_file(path)[:12])
    training = read_metrics(directory / "metrics.jsonl")[-1].seconds
    assert training is not None
    taken = statistics.median(wall)
    print(
        f"{name:<30} wall {taken:6.2f} s ({min(wall):.2f} to {max(wall):.2f})"
        f"  cpu {statistics.median(cpu):6.2f} s"
        f"  training {training:5.0f} s, share {taken / training:5.1%}  {' '.join(digests)}",
        flush=True,
    )


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for run in args.runs:
        measure(run, args.rounds)


if __name__ == "__main__":
    main()
