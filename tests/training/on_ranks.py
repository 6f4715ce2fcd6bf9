"""A program for tests: runs the ranks of several trainings, one after another.

    python -m tests.training.on_ranks RANK TRAININGS.json

All trainings use the same processes, because importing torch takes longer than a small training. A
training with n ranks uses the first n processes.
"""

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nanogpt.artifacts.signals import Signals, Stopped
from nanogpt.artifacts.states import TrainingState, is_saved
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.training import loop
from nanogpt.training.distributed import ALONE, Ranks
from nanogpt.training.session import Session
from nanogpt.training.sharding import part_of


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


class Unsharded(Ranks):
    """Ranks that all update every parameter."""

    def own(self, parameters):
        return list(parameters)

    def send_own(self, parameters):
        pass


def main() -> None:
    rank, trainings = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    torch.set_num_threads(1)
    for number, content in enumerate(trainings):
        training = Training(**content)
        if rank >= training.n:
            continue
        ranks = ALONE
        if training.n > 1:
            store = dist.FileStore(f"{sys.argv[2]}.{number}", training.n)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=training.n)
            kind = Unsharded if training.unsharded else Ranks
            ranks = kind(rank, training.n, is_sharded=training.split)
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


if __name__ == "__main__":
    main()
