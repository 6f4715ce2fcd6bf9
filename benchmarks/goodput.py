"""Simulate failures of a long training: how often should it save its state?

    python benchmarks/goodput.py [--trials 400] [--plot docs/goodput.svg]

Goodput is the share of the wall time that is spent on steps whose result is kept. The rest is lost
to saves, to steps that a failure undoes, and to restarts. The script saves the state of a small
model to get the bytes per parameter and the CPU seconds per gigabyte, scales both to a larger
model, and prints a Markdown table of the goodput on several clusters.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.config.schema import ModelSettings  # noqa: E402
from nanogpt.files.atomic import sha256_file  # noqa: E402
from nanogpt.model.sizing import n_parameters  # noqa: E402

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0

# Llama 3 405B (https://arxiv.org/abs/2407.21783, section 3.3.4): 419 unexpected interruptions in 54
# days of training on 16,384 GPUs.
GPU_SECONDS_PER_FAILURE = 16_384 * 54 * DAY / 419

# The other ranks notice a lost one after NANOGPT_RANK_TIMEOUT, 10 minutes by default. 5 minutes to
# get a node, start and read the state are an assumption.
RESTART = 15 * MINUTE

# A model of 6.7 billion parameters, with GPT-2's vocabulary.
LARGE = ModelSettings(n_layer=32, n_head=32, n_embd=4096, block_size=2048, dropout=0.0)
SMALL = ModelSettings(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.0)
VOCAB_SIZE = 50_257
GPUS = (8, 64, 1024, 16_384)
WORK = 30 * DAY  # of steps
# Bytes per second of the file system that all nodes share, an assumption.
FILE_SYSTEM = 100e9


@dataclass(frozen=True)
class Cluster:
    """A training on a cluster; all fields in seconds.

    between_failures: the mean time between failures of the whole training, infinite for none. save:
    the time of a save, during which no steps are made. restart: from a failure to the next step. A
    failure can also interrupt a save or a restart.
    """

    between_failures: float
    save: float
    restart: float = RESTART


def simulate(
    cluster: Cluster, interval: float, work: float, n_trials: int, seed: int = 0
) -> NDArray[np.float64]:
    """Return the wall seconds of trainings with random failures.

    interval: seconds of steps between two saves. work: seconds of steps of a whole training.

    The times between failures are exponentially distributed. The last step needs no save.
    """
    random = np.random.default_rng(seed)
    wall, saved = np.zeros(n_trials), np.zeros(n_trials)
    running = np.arange(n_trials)
    restart = 0.0  # the first start isn't counted
    while len(running):
        left = work - saved[running]
        needed = restart + left + cluster.save * (np.ceil(left / interval) - 1)
        failure = random.exponential(size=len(running)) * cluster.between_failures
        wall[running] += np.minimum(needed, failure)
        fails = failure < needed
        running, failure = running[fails], failure[fails]
        saved[running] += np.maximum(0, failure - restart) // (interval + cluster.save) * interval
        restart = cluster.restart
    return wall


def expected_seconds(cluster: Cluster, interval: float, work: float) -> float:
    """Return the expected wall seconds of a training: Daly's complete model.

    A segment of s seconds without a failure takes M exp(R / M) (exp(s / M) - 1) with its failed
    attempts, where M is the mean time between failures and R the restart's time.
    """
    n_saves = math.ceil(work / interval) - 1
    last = work - n_saves * interval
    mean = cluster.between_failures
    if math.isinf(mean):
        return work + n_saves * cluster.save
    segments = n_saves * math.expm1((interval + cluster.save) / mean) + math.expm1(last / mean)
    return mean * math.exp(cluster.restart / mean) * segments


def young_interval(cluster: Cluster) -> float:
    """Return Young's best interval, a first-order approximation."""
    return math.sqrt(2 * cluster.save * cluster.between_failures)


def daly_interval(cluster: Cluster) -> float:
    """Return Daly's best interval, of a higher order: J. T. Daly, A higher order estimate of the
    optimum checkpoint interval for restart dumps, FGCS 22 (2006).
    """
    if cluster.save >= 2 * cluster.between_failures:
        return cluster.between_failures
    ratio = cluster.save / (2 * cluster.between_failures)
    return young_interval(cluster) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cluster.save


# --- Our own saves --------------------------------------------------------------------------


@dataclass(frozen=True)
class Saves:
    """The cost of a saved state. seconds_per_byte: CPU time, so a lower bound of the wall time.

    kept: bytes per parameter of the weights that rank 0 writes; moments: of the rest.
    """

    seconds_per_byte: float
    kept: float
    moments: float

    def by_rank_0(self, n_parameters: int, n_ranks: int) -> float:
        """Return the seconds of a save as it is: the parts of the other ranks, then rank 0's."""
        part = self.moments / n_ranks
        others = part if n_ranks > 1 else 0
        return self.seconds_per_byte * n_parameters * (others + self.kept + part)

    def by_all_ranks(self, n_parameters: int, n_ranks: int) -> float:
        """Return the seconds of a save in which each rank would write its part of everything."""
        size = n_parameters * (self.kept + self.moments)
        return max(self.seconds_per_byte * size / n_ranks, size / FILE_SYSTEM)


def measure_saves(model_settings: ModelSettings = SMALL, rounds: int = 5) -> Saves:
    """Save the state of a small model with AdamW and its best weights several times.

    The time is the least of all rounds. The others also wait for memory from the system.
    """
    import torch

    from nanogpt.config.schema import TrainSettings
    from nanogpt.model.gpt import GPT
    from nanogpt.training.optimizers import configure_optimizer
    from nanogpt.training.saved_state import Progress, save_state
    from nanogpt.training.state_files import find_states
    from nanogpt.training.step import loss_scaler

    settings = TrainSettings(device="cpu", dtype="float32", optimizer="adamw")
    model = GPT(model_settings, VOCAB_SIZE)
    optimizer = configure_optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    progress = Progress("benchmark")
    progress.kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        directory, scaler = Path(temporary), loss_scaler(settings)
        seconds = _cpu_seconds(
            lambda: save_state(directory, progress, model, optimizer, scaler), rounds
        )
        size = find_states(directory)[0].stat().st_size
    n = model.n_parameters()
    kept = 2 * 4.0  # float32 weights, the last and the best
    return Saves(seconds / size, kept, size / n - kept)


def measure_start(n_bytes: int = 2 * 10**8, n_windows: int = 20_000_000) -> tuple[float, float]:
    """Return the CPU seconds of a gigabyte's digest, and of the order of an epoch's windows.

    A training computes both when it starts.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tokens.bin"
        path.write_bytes(bytes(n_bytes))
        digest = _cpu_seconds(lambda: sha256_file(path))
    order = _cpu_seconds(lambda: np.random.default_rng(0).permutation(n_windows))
    return 1e9 * digest / n_bytes, order


def _cpu_seconds(function: Callable[[], object], rounds: int = 3) -> float:
    """Return the least CPU time of several calls."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


# --- The comparison -------------------------------------------------------------------------


def clusters_of(saves: Saves, n_parameters: int) -> dict[str, dict[int, Cluster]]:
    """Return the clusters to compare, by who writes a state and the number of GPUs."""
    return {
        name: {n: Cluster(GPU_SECONDS_PER_FAILURE / n, seconds_of(n_parameters, n)) for n in GPUS}
        for name, seconds_of in (
            ("rank 0 writes all weights, as now", saves.by_rank_0),
            ("each rank writes its part", saves.by_all_ranks),
        )
    }


def table(by_writer: dict[str, dict[int, Cluster]], n_trials: int) -> list[str]:
    """Return a Markdown table of the goodput at our interval and at Daly's."""
    from nanogpt.training.session import interval_between_saves

    lines = [
        "| saves | GPUs | failures per day | save, s | our default, min | goodput, % "
        "| Daly's interval, min | goodput, % | simulated, % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for writer, clusters in by_writer.items():
        for n_gpus, cluster in clusters.items():
            ours, best = interval_between_saves(cluster.save), daly_interval(cluster)
            shares = [100 * WORK / expected_seconds(cluster, tau, WORK) for tau in (ours, best)]
            simulated = 100 * WORK / simulate(cluster, best, WORK, n_trials).mean()
            lines.append(
                f"| {writer} | {n_gpus:,} | {DAY / cluster.between_failures:.2g} "
                f"| {cluster.save:.1f} | {ours / MINUTE:.0f} | {shares[0]:.1f} "
                f"| {best / MINUTE:,.0f} | {shares[1]:.1f} | {simulated:.1f} |"
            )
    return lines


def draw(by_writer: dict[str, dict[int, Cluster]], n_trials: int, path: Path) -> None:
    """Plot the goodput over the interval: simulated, expected, and at the best intervals."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    from nanogpt.training.session import interval_between_saves

    plt.rcParams["svg.hashsalt"] = "goodput"
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    for axis, (writer, clusters) in zip(axes, by_writer.items(), strict=True):
        for color, (n_gpus, cluster) in enumerate(clusters.items()):

            def goodput(interval: float, cluster: Cluster = cluster) -> float:
                return 100 * WORK / expected_seconds(cluster, interval, WORK)

            style = {"color": f"C{color}"}
            lines, points = np.geomspace(MINUTE, DAY, 200), np.geomspace(MINUTE, DAY, 16)
            curve = list(map(goodput, lines))
            axis.plot(lines / MINUTE, curve, label=f"{n_gpus:,} GPUs", **style)
            times = [simulate(cluster, tau, WORK, n_trials).mean() for tau in points]
            axis.plot(points / MINUTE, 100 * WORK / np.array(times), ".", markersize=7, **style)
            best, ours = daly_interval(cluster), interval_between_saves(cluster.save)
            axis.plot(best / MINUTE, goodput(best), "*", markersize=15, zorder=3, **style)
            axis.plot(ours / MINUTE, goodput(ours), "s", markersize=8, fillstyle="none", **style)
        axis.set(
            title=writer,
            xlabel="minutes of steps between two saves",
            ylim=(0, 104),
            xlim=(0.9, 1700),
        )
        axis.set_xscale("log")
        ticks = [1, 3, 10, 30, 60, 180, 480, 1440]
        axis.set_xticks(ticks, ["1", "3", "10", "30", "1 h", "3 h", "8 h", "1 d"], minor=False)
        axis.set_xticks([], minor=True)
        axis.set(xlim=(0.9, 1700), ylim=(0, 104))
        axis.grid(alpha=0.25)
    for marker, label in ((".", "simulated"), ("*", "Daly's interval"), ("s", "our default")):
        fill = "none" if marker == "s" else "full"
        axes[1].plot([], [], marker, color="grey", fillstyle=fill, label=label)
    axes[0].set_ylabel("goodput, %")
    axes[1].legend(frameon=False, fontsize=9, loc="lower left")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the measured saves and the table, and draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--plot", type=Path, default=PROJECT / "docs/goodput.svg")
    args = parser.parse_args()
    saves, size = measure_saves(), n_parameters(LARGE, VOCAB_SIZE)
    digest, order = measure_start()
    print(
        f"a saved state has {saves.kept + saves.moments:.3f} bytes per parameter and takes "
        f"{1e9 * saves.seconds_per_byte:.2f} s of CPU time per GB\n"
        f"a digest takes {digest:.2f} s of CPU time per GB, and the order of 20 million windows "
        f"{order:.2f} s\n"
        f"the model has {size:,} parameters: {size * (saves.kept + saves.moments) / 1e9:.0f} GB\n"
    )
    by_writer = clusters_of(saves, size)
    print(*table(by_writer, args.trials), sep="\n")
    draw(by_writer, args.trials, args.plot)


if __name__ == "__main__":
    main()
