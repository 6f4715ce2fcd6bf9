"""Compare training with nanoGPT: time, loss and speed.

    snakemake --cores 2 results/datasets/{shakespeare_char,shakespeare}/meta.json
    python benchmarks/train.py PATH_OF_A_NANOGPT_CHECKOUT [--short] [--long] [--plot docs/train.svg]

1. nanoGPT's CPU quick start, unchanged, and our `shakespeare_char_fast`: seconds from the start of
   the process to its saved weights, and their loss.
2. Our `shakespeare_char` in the time that nanoGPT took.
3. With --long: our `shakespeare_char_best`, to compare with nanoGPT's published loss on a GPU.
4. A step of the same architecture, GPT-2's, in both programs (benchmarks/train_step.py).

Losses are of the whole validation split, by our evaluation for both (it reads nanoGPT's ckpt.pt).
Three seeds; --short uses one and leaves out the steps of GPT-2 124M. A measurement that other
processes disturbed is repeated. On a busy machine the program exits without figures.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402

from benchmarks import train_step  # noqa: E402
from benchmarks.peer import QUICK_START, copy_with_data, read_weights, set_seed  # noqa: E402
from benchmarks.processes import Timed, run_timed  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402
from nanogpt.config.schema import EvalSettings, Run  # noqa: E402
from nanogpt.data.batches import load  # noqa: E402
from nanogpt.model.checkpoints import load_model  # noqa: E402
from nanogpt.model.gpt import GPT  # noqa: E402
from nanogpt.model.losses import window_starts, windows_loss  # noqa: E402

DATASETS = train_step.DATASETS
SEEDS = (1337, 1, 2)
PEER = "nanoGPT's CPU quick start"
GPU_LOSS = 1.4697  # https://github.com/karpathy/nanoGPT
TRIAL_STEPS = (20, 120)  # two short trainings, to estimate the time of a long one


@dataclass(frozen=True)
class Row:
    """A training. wall, cpu: seconds. loss: nats per token."""

    what: str
    seed: int
    steps: int
    wall: float
    cpu: float
    loss: float


def whole_split_loss(model: GPT) -> float:
    """Nats per token on all whole windows of the validation split."""
    tokens = load(DATASETS / "shakespeare_char").val
    starts = window_starts(len(tokens), model.settings.block_size, len(tokens))
    settings = EvalSettings(device="cpu", dtype="float32", batch_size=32)
    return windows_loss(model, tokens, starts, settings).mean


def train_peer(
    copy: Path, seed: int, threads: int, what: str = PEER, arguments: Sequence[str] = QUICK_START
) -> Row:
    """Train nanoGPT's quick start, or another of its configs, in a copy of its checkout."""
    set_seed(copy, seed)
    timed = run_timed([sys.executable, "train.py", *arguments], copy, threads)
    loss = whole_split_loss(read_weights(copy / "out-shakespeare-char/ckpt.pt"))
    n_steps = len(re.findall(r"^iter ", timed.output, re.MULTILINE))
    return _row(what, seed, n_steps, timed, loss)


def train_ours(run: Run, seed: int, threads: int, steps: int | None = None) -> Row:
    """Train a run of config.yaml with another seed. steps: the run's own, if None."""
    changes = {"seed": seed}
    if steps:
        changes |= {"max_iters": steps, "lr_decay_iters": steps, "eval_interval": steps}
    train = run.train.model_copy(update=changes)
    with tempfile.TemporaryDirectory() as results:
        timed = train_step.run_ours(run.dataset, run.model, train, threads, results)
        model = load_model(Path(results) / "model").model
    assert isinstance(model, GPT)
    loss = whole_split_loss(model)
    return _row(run.name, seed, train.max_iters, timed, loss)


def steps_within(run: Run, seconds: float, threads: int) -> int:
    """Estimate how many steps a run makes in some seconds, including the start of its process.

    Returns a tenth less than two short trainings suggest, because the machine's speed drifts.
    """
    few, many = (train_ours(run, 1, threads, steps).wall for steps in TRIAL_STEPS)
    of_step = (many - few) / (TRIAL_STEPS[1] - TRIAL_STEPS[0])
    return int(0.9 * (seconds - few) / of_step) + TRIAL_STEPS[0]


def _row(what: str, seed: int, steps: int, timed: Timed, loss: float) -> Row:
    row = Row(what, seed, steps, timed.wall, timed.cpu, loss)
    print(
        f"{what}, seed {seed}: {steps} steps, {row.wall:.1f} s, cpu {row.cpu:.1f} s, "
        f"other processes {timed.others:.1%}, loss {loss:.4f}",
        flush=True,
    )
    return row


def table(rows: list[Row]) -> str:
    """A Markdown table with medians over seeds and ranges; the first row must be nanoGPT's."""
    by_name: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.what].append(row)
    lines = [
        "| training | seeds | steps | seconds, median | range | loss, mean | range | speedup |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    peer = statistics.median(row.wall for row in by_name[rows[0].what])
    for what, group in by_name.items():
        walls, losses = [row.wall for row in group], [row.loss for row in group]
        wall = statistics.median(walls)
        steps = statistics.median(row.steps for row in group)
        lines.append(
            f"| {what} | {len(group)} | {steps:.0f} | {wall:.1f} "
            f"| {min(walls):.1f} to {max(walls):.1f} | {statistics.mean(losses):.4f} "
            f"| {min(losses):.4f} to {max(losses):.4f} | {peer / wall:.1f} |"
        )
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Plot loss over seconds, with a point for each training."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "train"
    figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
    for what in dict.fromkeys(row.what for row in rows):
        group = [row for row in rows if row.what == what]
        marker = "x" if what == rows[0].what else "o"
        axis.plot(
            [row.wall for row in group],
            [row.loss for row in group],
            marker,
            label=what,
            markersize=7,
        )
    axis.axhline(GPU_LOSS, color="grey", linewidth=1, linestyle=":")
    axis.annotate(
        f"{GPU_LOSS}, nanoGPT's on an A100, published",
        (0.01, GPU_LOSS),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color="grey",
    )
    axis.set_xscale("log")
    ticks = [5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axis.set_xlim(4, max(200.0, 1.3 * max(row.wall for row in rows)))
    axis.set_xlabel("seconds from the start of the process to its saved weights")
    axis.set_ylabel("loss on the whole validation split, nats")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def train_all(checkout: Path, seeds: tuple[int, ...], long: bool, threads: int) -> list[Row]:
    """Run both programs in turn, seed by seed."""
    config = read(PROJECT / "config.yaml")
    soon, given_time = (
        resolve_run(config, name) for name in ("shakespeare_char_fast", "shakespeare_char")
    )
    given_time = given_time.model_copy(update={"name": "shakespeare_char, in nanoGPT's time"})
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        data = {"shakespeare_char": DATASETS / "shakespeare_char"}
        copy = copy_with_data(checkout, Path(directory), data)
        for seed in seeds:
            peer = train_peer(copy, seed, threads)
            steps = steps_within(given_time, peer.wall, threads)
            rows += [peer, train_ours(soon, seed, threads)]
            rows += [train_ours(given_time, seed, threads, steps)]
    if long:
        rows.append(train_ours(resolve_run(config, "shakespeare_char_best"), 1337, threads))
    return rows


def main() -> None:
    """Run all measurements and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--short", action="store_true", help="only one seed: under ten minutes")
    parser.add_argument("--long", action="store_true", help="also shakespeare_char_best")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--plot", type=Path, help="write the plot to this file")
    parser.add_argument("--rows", type=Path, help="write the rows to this file, as JSON")
    arguments = parser.parse_args()
    seeds = SEEDS[:1] if arguments.short else SEEDS
    rows = train_all(arguments.checkout.resolve(), seeds, arguments.long, arguments.threads)
    if arguments.rows:
        arguments.rows.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(f"\n{arguments.threads} threads, {torch.backends.cpu.get_cpu_capability()}\n")
    print(table(rows))
    if arguments.plot:
        draw(rows, arguments.plot)
    shapes, rounds = [train_step.QUICK_START, train_step.GPT2], 5
    if arguments.short:
        shapes, rounds = shapes[:1], 3
    train_step.compare_all(arguments.checkout, shapes, rounds, arguments.threads)


if __name__ == "__main__":
    main()
