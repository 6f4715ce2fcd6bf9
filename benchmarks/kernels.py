"""Compare a training step with our choice of kernels and with the alternatives.

    snakemake --cores 2 results/datasets/{shakespeare_char,shakespeare}/meta.json
    python benchmarks/kernels.py [--rounds 3]
    python benchmarks/kernels.py --busy

Each variant runs some steps of a run in a separate process; the variants take turns. A row has the
median, minimum and maximum of the rounds, the page faults of a step (memory taken from the system)
and the process's peak memory. "as shipped" is what `snakemake` uses.

--busy compares how long threads wait for each other before they sleep, on an idle machine and next
to a process on each core that never rests.
"""

import argparse
import dataclasses
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks import processes  # noqa: E402
from nanogpt.artifacts.states import TrainingState  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402
from nanogpt.devices import resolve  # noqa: E402
from nanogpt.model import gpt, losses  # noqa: E402
from nanogpt.project import (  # noqa: E402
    SPIN_COUNT,
    SPIN_COUNT_BESIDE_OTHERS,
    SPIN_COUNT_IN_A_CROWD,
)
from nanogpt.training import loop, step  # noqa: E402
from nanogpt.training.session import Session  # noqa: E402

CASES = (
    ("shakespeare_char_quickstart", "float32"),
    ("shakespeare_char", "float32"),
    ("shakespeare_char", "bfloat16"),
    ("shakespeare", "bfloat16"),
)
SECONDS = 4.0  # of steps in each process, roughly
WARM_UP = 5  # steps
BUSY_RUNS = (("shakespeare_char_fast", "auto"), ("shakespeare_char", "auto"))
SPIN = [sys.executable, "-c", "while True: pass"]


def torchs_attention() -> None:
    """Use torch's fused attention on a CPU too."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)

    gpt.attend = attend  # type: ignore[attr-defined]


def all_logits_at_once() -> None:
    """Compute the logits of a batch as one tensor for any vocabulary."""
    losses.LARGE_VOCABULARY = sys.maxsize  # type: ignore[attr-defined]


def memory_given_back() -> None:
    """Keep glibc's default thresholds."""
    step.keep_freed_memory = lambda: None  # type: ignore[attr-defined]


def as_shipped() -> None:
    """Change nothing."""


# Environment variables, and a function to call before training.
WAYS: dict[str, tuple[dict[str, str], Callable[[], None]]] = {
    "as shipped": ({}, as_shipped),
    "products by MKL": ({"NANOGPT_MATMUL": "torch"}, as_shipped),
    "products by oneDNN": ({"NANOGPT_MATMUL": "onednn"}, as_shipped),
    "torch's attention": ({}, torchs_attention),
    "all logits at once": ({}, all_logits_at_once),
    "freed memory given back": ({}, memory_given_back),
}
WAITING: dict[str, tuple[dict[str, str], Callable[[], None]]] = {
    "`GOMP_SPINCOUNT=300000`, libgomp's default": ({"GOMP_SPINCOUNT": "300000"}, as_shipped),
    f"`GOMP_SPINCOUNT={SPIN_COUNT}`, our default": ({}, as_shipped),
    f"`GOMP_SPINCOUNT={SPIN_COUNT_BESIDE_OTHERS}`, next to some": (
        {"GOMP_SPINCOUNT": SPIN_COUNT_BESIDE_OTHERS},
        as_shipped,
    ),
    f"`GOMP_SPINCOUNT={SPIN_COUNT_IN_A_CROWD}`, next to as many as processors": (
        {"GOMP_SPINCOUNT": SPIN_COUNT_IN_A_CROWD},
        as_shipped,
    ),
}
ALL_WAYS = WAYS | WAITING


def ways_of(run: str, dtype: str) -> list[str]:
    """The variants that make a difference for a run."""
    left_out = {"products by MKL", "products by oneDNN"} if dtype != "float32" else set()
    if run != "shakespeare":
        left_out.add("all logits at once")
    return [way for way in WAYS if way not in left_out]


@dataclasses.dataclass(frozen=True)
class Measured:
    """Steps of one process. milliseconds: median of a step. faults: per step. peak: MB."""

    milliseconds: float
    faults: float
    peak: float


def measure_here(name: str, dtype: str, way: str) -> Measured:
    """Run steps of a run in this process, with one variant."""
    ALL_WAYS[way][1]()
    run = resolve_run(read(PROJECT / "config.yaml"), name)
    changes = {"device": "cpu", "dtype": dtype, "eval_interval": sys.maxsize, "eval_iters": 1}
    settings = resolve(run.train.model_copy(update=changes))
    dataset = PROJECT / "results/datasets" / run.dataset
    with tempfile.TemporaryDirectory() as directory:
        state = TrainingState(Path(directory), "kernels")
        session: Session = loop._prepare(name, dataset, run.model, settings, state)
        session.model.train()
        seconds: list[float] = []
        before = 0
        with session.writing():
            while sum(seconds[WARM_UP:]) < SECONDS:
                if len(seconds) == WARM_UP:
                    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                start = time.perf_counter()
                session.step()
                seconds.append(time.perf_counter() - start)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    timed = seconds[WARM_UP:]
    faults = (usage.ru_minflt - before) / len(timed)
    return Measured(1e3 * statistics.median(timed), faults, usage.ru_maxrss / 1024)


def measure(name: str, dtype: str, way: str, threads: int) -> Measured:
    """The same in a new process."""
    variables = {"GOMP_SPINCOUNT": SPIN_COUNT, **ALL_WAYS[way][0]}
    command = [sys.executable, __file__, "--child", name, dtype, way]
    timed = processes.run_timed(command, PROJECT, threads, **variables)
    return Measured(**json.loads(timed.output.splitlines()[-1]))


def table(name: str, dtype: str, rounds: int, threads: int) -> str:
    """A Markdown table with a row per variant."""
    measured: dict[str, list[Measured]] = {way: [] for way in ways_of(name, dtype)}
    for _ in range(rounds):
        for way, of_way in measured.items():
            of_way.append(measure(name, dtype, way, threads))
    lines = [
        f"| `{name}`, {dtype} | step, ms | min | max | page faults | peak memory, MB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for way, of_way in measured.items():
        times = [one.milliseconds for one in of_way]
        faults = statistics.median(one.faults for one in of_way)
        peak = statistics.median(one.peak for one in of_way)
        lines.append(
            f"| {way} | {statistics.median(times):.1f} | {min(times):.1f} | {max(times):.1f} "
            f"| {math.ceil(faults):,} | {peak:,.0f} |"
        )
    return "\n".join(lines)


def table_beside_others(name: str, dtype: str, rounds: int, threads: int) -> str:
    """A Markdown table with a row per value of GOMP_SPINCOUNT."""
    lines = [
        f"| `{name}` | step alone, ms | range | next to busy processes | range |",
        "|---|--:|--:|--:|--:|",
    ]
    for way in WAITING:
        cells = []
        for n_busy in (0, os.cpu_count() or 1):
            times = []
            for _ in range(rounds):
                busy = [subprocess.Popen(SPIN) for _ in range(n_busy)]
                try:
                    times.append(measure(name, dtype, way, threads).milliseconds)
                finally:
                    for process in busy:
                        process.kill()
                        process.wait()
            cells += [f"{statistics.median(times):.1f} | {min(times):.1f} to {max(times):.1f}"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print a table for each run, or measure one variant in a child process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--busy", action="store_true", help="next to a busy process on each core")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        print(json.dumps(dataclasses.asdict(measure_here(*arguments.child))))
        return
    print(f"{arguments.threads} threads, {torch.backends.cpu.get_cpu_capability()}")
    if arguments.busy:
        processes.max_others = math.inf
        for name, dtype in BUSY_RUNS:
            text = table_beside_others(name, dtype, arguments.rounds, arguments.threads)
            print(f"\n{text}", flush=True)
        return
    for name, dtype in CASES:
        print(f"\n{table(name, dtype, arguments.rounds, arguments.threads)}", flush=True)


if __name__ == "__main__":
    main()
