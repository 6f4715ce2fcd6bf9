"""Compare a training step on one process and on two, each with one thread.

    python benchmarks/ranks.py [--steps 10]

Strong scaling: two processes share the rows of a step. Weak scaling: a step has twice the rows. One
process with two threads is also timed, because on one machine that is the alternative. Prints
medians of five rounds, taking turns, in milliseconds. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch._C._distributed_c10d import FileStore  # noqa: E402

from nanogpt.config.schema import ModelSettings, TrainSettings  # noqa: E402
from nanogpt.model.gpt import GPT  # noqa: E402
from nanogpt.training.distributed import ALONE, Ranks  # noqa: E402
from nanogpt.training.optimizers import configure_optimizer  # noqa: E402
from nanogpt.training.step import (  # noqa: E402
    loss_function,
    loss_scaler,
    optimizer_step,
    prepare_process,
)

ROUNDS = 5
WARM_UP = 3  # steps
VOCAB_SIZE = 65
# nanoGPT's CPU quick start and its baby GPT.
CASES = {
    "0.8 M": (ModelSettings(n_layer=4, n_head=4, n_embd=128, block_size=64, dropout=0.0), 32),
    "10.65 M": (ModelSettings(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.0), 12),
}
# Processes, threads per process, and a factor for the rows.
LAYOUTS = ((1, 1, 1), (1, 2, 1), (2, 1, 1), (2, 1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rank", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        print(json.dumps(time_steps(args.steps, *args.rank)))
        return
    results = []
    for case in CASES:
        timed: dict[tuple[int, int, int], list[float]] = {layout: [] for layout in LAYOUTS}
        for _ in range(ROUNDS):
            for layout, seconds in timed.items():
                seconds.append(measure(case, layout, args.steps))
        alone = statistics.median(timed[LAYOUTS[0]])
        for (n, threads, times), seconds in timed.items():
            median = statistics.median(seconds)
            faster = times * alone / median
            print(
                f"{case:>8}  {n} x {threads} thread(s), {times} x the rows: {1e3 * median:7.1f} ms "
                f"({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f}), {faster:.2f} times the "
                "rows per second of one process with one thread",
                flush=True,
            )
            measured = {"processes": n, "threads": threads, "rows": times, "seconds": seconds}
            results.append({"case": case, **measured})
    print(json.dumps(results))


def measure(case: str, layout: tuple[int, int, int], steps: int) -> float:
    """Median seconds of a step on the slowest rank."""
    n, threads, times = layout
    with tempfile.TemporaryDirectory() as directory:
        store = str(Path(directory) / "store")
        command = [sys.executable, __file__, "--steps", str(steps), "--rank"]
        processes = [
            subprocess.Popen(
                [*command, case, str(rank), str(n), str(threads), str(times), store],
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
            for rank in range(n)
        ]
        printed = [process.communicate()[0] for process in processes]
    return max(float(json.loads(text)) for text in printed)


def time_steps(
    steps: int, case: str, rank: str, n: str, threads: str, times: str, store: str
) -> float:
    """Median seconds of a step on one rank."""
    ranks = ALONE
    if int(n) > 1:
        found = FileStore(store, int(n))
        dist.init_process_group("gloo", store=found, rank=int(rank), world_size=int(n))
        ranks = Ranks(int(rank), int(n))
    model_settings, n_rows = CASES[case]
    rows = n_rows * int(times)
    settings = TrainSettings(device="cpu", dtype="float32", optimizer="adamw", batch_size=rows)
    prepare_process(settings)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    model = GPT(model_settings, VOCAB_SIZE)
    optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
    loss_of = loss_function(model, settings)
    windows = np.random.default_rng(0).integers(
        VOCAB_SIZE, size=(rows, model_settings.block_size + 1)
    )
    seconds = []
    for step in range(WARM_UP + steps):
        start = time.perf_counter()
        optimizer_step(
            *(loss_of, optimizer, scaler, windows[ranks.share], 1e-3, settings, step),
            ranks=ranks,
            n_rows=rows,
        )
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


if __name__ == "__main__":
    main()
