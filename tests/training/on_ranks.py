"""A program for tests: runs the ranks of several trainings, one after another.

    python -m tests.training.on_ranks TRAININGS.json RANK
    srun --ntasks=N python -m tests.training.on_ranks TRAININGS.json

All trainings use the same processes, because importing torch takes longer than a small training. A
training with n ranks uses the first n processes. Under srun, they meet as in the workflow.
"""

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from nanogpt.artifacts.signals import Signals, Stopped
from nanogpt.artifacts.states import TrainingState, is_saved
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.project import start_of_rank
from nanogpt.training import launching, loop
from nanogpt.training.distributed import Ranks
from nanogpt.training.session import Session
from nanogpt.training.sharding import part_of

STEPS = 8
ROWS = 16  # of which three ranks have unequal shares
MODEL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "dropout": 0.0}
TRAIN = {
    **{"max_iters": STEPS, "batch_size": ROWS, "eval_interval": 4, "eval_iters": 2},
    **{"log_interval": 1, "device": "cpu", "dtype": "float32", "warmup_iters": 2},
}
# With a shorter warm-up, rounding grows to a hundred times as much.
LONG = {**TRAIN, "max_iters": 50, "learning_rate": 4e-3, "warmup_iters": 100, "eval_interval": 50}


@dataclasses.dataclass(frozen=True)
class Training:
    """A training with n ranks. directory: for its state and results.

    stop_at: the step at which the last rank gets a stop signal. unsharded: every rank updates all
    parameters, as without owners. split: the model itself is sharded.
    """

    directory: str
    dataset: str
    model: dict[str, Any]
    train: dict[str, Any]
    n: int
    stop_at: int | None = None
    unsharded: bool = False
    split: bool = False


@dataclasses.dataclass(frozen=True)
class Keeping(Ranks):
    """Ranks of which the first saves the gradient of the first step."""

    directory: str = ""

    def add_gradients(self, parameters, loss):
        total = super().add_gradients(parameters, loss)
        path = Path(self.directory, "gradient.pt")
        if self.is_main and not self.is_sharded and not path.exists():
            torch.save(torch.cat([parameter.grad.reshape(-1) for parameter in parameters]), path)
        return total


@dataclasses.dataclass(frozen=True)
class Unsharded(Keeping):
    """Ranks that all update every parameter."""

    def own(self, parameters):
        return list(parameters)

    def send_own(self, parameters):
        pass


def main() -> None:
    listed = sys.argv[1]
    start = start_of_rank()
    rank = start.rank if start else int(sys.argv[2])
    shared = launching._meet(start) if start else None
    torch.set_num_threads(1)
    for number, content in enumerate(json.loads(Path(listed).read_text())):
        training = Training(**content)
        if rank >= training.n:
            continue
        if training.n > 1:
            file = dist.FileStore(f"{listed}.{number}", training.n) if shared is None else None
            store = file or dist.PrefixStore(str(number), shared)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=training.n)
        kind = Unsharded if training.unsharded else Keeping
        ranks = kind(rank, training.n, is_sharded=training.split, directory=training.directory)
        run(training, ranks)
        if training.n > 1:
            dist.destroy_process_group()


def run(training: Training, ranks: Ranks) -> None:
    directory = Path(training.directory)
    directory.mkdir(parents=True, exist_ok=True)
    model, settings = ModelSettings(**training.model), TrainSettings(**training.train)
    state = TrainingState(directory / "state", "v")
    prepared = loop._prepare("run", Path(training.dataset), model, settings, state, None, ranks)
    session = Noting(**{f.name: getattr(prepared, f.name) for f in dataclasses.fields(prepared)})
    signals = Signals()
    session.start(signals, training.stop_at if ranks.rank == ranks.n - 1 else None)
    try:
        loop._make_steps(session, signals)
    except Stopped:
        session.save()
        assert is_saved(state.directory), "a rank must not end before the state is saved"
        return
    session.write_results(directory)
    assert session.progress.kept if ranks.is_main else not session.progress.kept
    own = [moments for moments in session.optimizer.state.values() if moments]
    held = sum(part_of(moment).numel() for moments in own for moment in moments.values())
    (directory / f"held-{ranks.rank}.json").write_text(json.dumps(held))


class Noting(Session):
    """A session that gets a signal at a step and saves no state otherwise."""

    def start(self, signals: Signals, stop_at: int | None) -> None:
        self._signals, self._stop_at = signals, stop_at

    def agree(self, signals: Signals) -> bool:
        if self.progress.step == self._stop_at:
            signals.stop = signal.SIGTERM
        return super().agree(signals)


def metrics(directory: Path) -> list[dict[str, Any]]:
    """The metrics of a training, without times."""
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def assert_alike(alone: Path, shared: Path) -> None:
    """Several ranks have computed what one did: losses, and the gradient from equal weights."""
    first, second = metrics(alone), metrics(shared)
    assert len(first) == len(second) > STEPS
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() & {"loss", "train_loss", "val_loss"}:
            assert abs(other[name] - one[name]) < 1e-4, (one["step"], name)
    # Before rounding has grown.
    one, other = (torch.load(path / "gradient.pt") for path in (alone, shared))
    assert one.norm() > 0
    assert (other - one).norm() < 1e-5 * one.norm()
    one, other = (load_file(path / "model/model.safetensors") for path in (alone, shared))
    for name, tensor in other.items():
        assert torch.allclose(tensor, one[name], atol=2e-3), name


if __name__ == "__main__":
    main()
