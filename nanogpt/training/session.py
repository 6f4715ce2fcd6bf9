"""A running training: its steps, its measurements, and its files.

With several ranks, only rank 0 shows progress and writes files, except for parts of saved states.
"""

import contextlib
import json
import logging
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.artifacts.signals import Signals, Stopped
from nanogpt.artifacts.states import METRICS, TrainingState
from nanogpt.config.schema import TrainSettings
from nanogpt.data.batches import TokenFiles, batch, start_tokens
from nanogpt.data.shards import SplitTokens
from nanogpt.errors import ClaimedError, DivergedError
from nanogpt.files.atomic import atomic_write
from nanogpt.model.directories import MODEL_FILES, save_model
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import window_starts, windows_loss
from nanogpt.project import save_interval
from nanogpt.training.distributed import ALONE, Ranks
from nanogpt.training.saved_state import Progress, save_state
from nanogpt.training.schedules import learning_rate_at
from nanogpt.training.sharding import whole
from nanogpt.training.state_files import remove_states
from nanogpt.training.step import LossFunction, optimizer_step

logger = logging.getLogger(__name__)

SAVE_INTERVAL = 60.0  # the least seconds between two saved states
SAVE_SHARE = 0.01  # the largest share of a training's time for saving its state
# Warn after this many seconds of steps if the training's thread was running for less than this
# share of them. On an idle machine, it runs almost all the time.
NOTICE_AFTER = 20.0
UNDISTURBED = 0.75

CHECK_INTERVAL = 5.0  # seconds between two checks that this process may still write

MILESTONES = "milestones"


@dataclass
class Session:
    """A training from its first step to its last.

    state: the directory for states, metrics and milestones until the end. ranks: the processes that
    train together.
    """

    model: GPT
    loss_of: LossFunction
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    files: TokenFiles
    settings: TrainSettings
    progress: Progress
    state: TrainingState
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        settings = self.settings
        self._rows_per_step = settings.batch_size * settings.gradient_accumulation_steps
        self._tokens_per_step = self._rows_per_step * self.model.settings.block_size
        self._save_interval = interval_between_saves(0.0)
        self._start = time.monotonic() - self.progress.seconds
        self._saved = self._checked = time.monotonic()
        self._timed_steps, self._step_seconds = 0, 0.0  # since the last line of metrics
        self._wall, self._cpu = 0.0, 0.0  # seconds of all steps, until a notice

    @property
    def is_last(self) -> bool:
        """Whether all steps are done."""
        return self.progress.step == self.settings.max_iters

    # --- Computing --------------------------------------------------------------------------

    def step(self) -> None:
        """Make the next step, and record its measurements if it's to be logged or evaluated."""
        start, cpu_start = time.monotonic(), time.thread_time()
        settings, progress = self.settings, self.progress
        learning_rate = learning_rate_at(progress.step, settings)
        block_size = self.model.settings.block_size
        n_rows, share = self._rows_per_step, self.ranks.share
        windows = batch(self.files.train, block_size, n_rows, settings.seed, progress.step, share)
        loss, norm = optimizer_step(
            self.loss_of,
            self.optimizer,
            self.scaler,
            windows,
            learning_rate,
            settings,
            progress.step,
            ranks=self.ranks,
            n_rows=n_rows,
        )
        progress.step += 1
        progress.line = None
        if progress.step % settings.log_interval == 0 or self._evaluates:
            # Reading a number waits for the device, so it's part of the step's time.
            line = MetricsLine(
                step=progress.step,
                tokens=progress.step * self._tokens_per_step,
                loss=loss.item(),
                learning_rate=learning_rate,
            )
            # With float16, a norm that isn't finite means that the step was skipped.
            grad_norm = norm.item()
            if math.isfinite(grad_norm) or not self.scaler.is_enabled():
                line = line.model_copy(update={"grad_norm": grad_norm})
            progress.line = line
        seconds = time.monotonic() - start
        self._step_seconds += seconds
        self._timed_steps += 1
        self._notice_disturbance(seconds, time.thread_time() - cpu_start)
        self._bar.update()

    def _notice_disturbance(self, wall: float, cpu: float) -> None:
        """Warn if something keeps the first steps waiting. wall, cpu: seconds of a step."""
        settings = self.settings
        # With several ranks, a thread also waits for the other ranks.
        is_measured = settings.device == "cpu" and not settings.compile and self.ranks.n == 1
        if not is_measured or self._wall >= NOTICE_AFTER:
            return
        self._wall += wall
        self._cpu += cpu
        if self._wall >= NOTICE_AFTER and self._cpu < UNDISTURBED * self._wall:
            logger.warning(
                "other programs slow down this training: it had a CPU for only %.0f %% of the "
                "first %.0f seconds; stop them, or use fewer threads (for example, `--cores 1`)",
                100 * self._cpu / self._wall,
                self._wall,
            )

    def evaluate(self, signals: Signals) -> MetricsLine | None:
        """Return the line to log for the last step, including the losses of both splits if due.

        Keeps the weights if they're the best, or the last, as `keep` says. A stop signal raises
        `Stopped` immediately, without a change of the progress.
        """
        settings, progress = self.settings, self.progress
        if not self._evaluates:
            return progress.line
        # One rank can't leave an evaluation that the others wait in.
        leaving = signals.interrupting() if self.ranks.n == 1 else contextlib.nullcontext()
        with leaving:
            train_loss, val_loss = self._loss(self.files.train), self._loss(self.files.val)
        is_best = val_loss < progress.best_val_loss
        progress.best_val_loss = min(progress.best_val_loss, val_loss)
        keeps = self.is_last if settings.keep == "last" else is_best
        if keeps:
            progress.kept = self._weights()
        tokens = progress.step * self._tokens_per_step
        line = progress.line or MetricsLine(step=progress.step, tokens=tokens)
        return line.model_copy(update={"train_loss": train_loss, "val_loss": val_loss})

    @property
    def _evaluates(self) -> bool:
        return self.progress.step % self.settings.eval_interval == 0 or self.is_last

    def _loss(self, tokens: SplitTokens) -> float:
        """Return the loss of a split on eval_iters * batch_size windows, the same in every call."""
        n_windows = self.settings.eval_iters * self.settings.batch_size
        starts = window_starts(len(tokens), self.model.settings.block_size, n_windows)
        if self.ranks.is_sharded:  # all ranks must take part in each forward pass
            return windows_loss(self.model, tokens, starts, self.settings).mean
        loss = windows_loss(self.model, tokens, starts[self.ranks.share], self.settings)
        nats, n_tokens = self.ranks.sums(loss.nats, loss.n_tokens)
        return nats / n_tokens

    # --- Writing ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Write metrics.jsonl in the state's directory and show a progress bar inside the block."""
        metrics = Path(os.devnull)
        if self.ranks.is_main:
            self.state.directory.mkdir(parents=True, exist_ok=True)
            metrics = self.state.directory / METRICS
        # disable=None: no bar without a terminal; the log has plain lines.
        disable = None if self.ranks.is_main else True
        total, done = self.settings.max_iters, self.progress.step
        with (
            open(metrics, "wb") as self._metrics,
            tqdm(total=total, initial=done, unit="step", disable=disable) as self._bar,
        ):
            self._metrics.write(self.progress.metrics)
            yield

    def log(self, line: MetricsLine) -> None:
        """Complete a line with its times, and add it to the metrics."""
        progress = self.progress
        # A line from a saved state in format 1 has no tokens.
        more: dict[str, float] = {"tokens": progress.step * self._tokens_per_step}
        if self._timed_steps:
            more["tokens_per_second"] = (
                self._timed_steps * self._tokens_per_step / self._step_seconds
            )
            self._timed_steps, self._step_seconds = 0, 0.0
        more["seconds"] = time.monotonic() - self._start
        line = line.model_copy(update=more)
        text = (json.dumps(line.content()) + "\n").encode()
        progress.metrics += text
        self._metrics.write(text)
        self._metrics.flush()
        summary = _summary(line)
        logger.info("step %d: %s", line.step, summary)
        self._bar.set_postfix_str(summary, refresh=False)

    def stop_if_diverged(self, line: MetricsLine) -> None:
        """Raise DivergedError if a loss is NaN or infinite, or gradients don't fit float16.

        The metrics are kept.
        """
        name = line.diverged()
        measure = f"{name} is {getattr(line, name)}" if name else None
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            measure = "gradients overflow float16"
        if measure is None:
            return
        muon = self.settings.optimizer == "muon"
        rates = "`matrix_lr`, `embedding_lr` and `unembedding_lr`" if muon else "`learning_rate`"
        if self.ranks.is_main:
            self.state.check_lock()
            remove_states(self.state.directory)  # a resume from them would diverge again
        self.ranks.wait()  # a rank that ends may end rank 0
        raise DivergedError(
            f"training diverged: {measure} at step {line.step}; "
            f"lower {rates}, raise `warmup_iters`, or set `grad_clip`"
        )

    def save_is_due(self) -> bool:
        """Whether the last state was saved long enough ago."""
        # The last step is saved too, because the results still have to be written.
        interval = CHECK_INTERVAL if self.is_last else self._save_interval
        return time.monotonic() - self._saved > interval

    def save(self) -> None:
        """Save the state of the training. All ranks call this, and return once it's saved."""
        self.state.check_lock()
        start = time.monotonic()
        self.progress.seconds = start - self._start
        save_state(
            self.state.directory,
            self.progress,
            self.model,
            self.optimizer,
            self.scaler,
            self.ranks,
        )
        logger.info("saved the state at step %d", self.progress.step)
        self._saved = time.monotonic()
        self._save_interval = interval_between_saves(self._saved - start)

    def agree(self, signals: Signals) -> bool:
        """Whether to save now: a rank got a save signal, or a save is due by rank 0's clock.

        Signals that arrive later are left for the next call, so that all ranks do the same.

        Errors: Stopped if any rank got a stop signal; ClaimedError or UserError if rank 0 may no
        longer write (see `check_owner`).
        """
        stop = signals.stop or 0
        save = signals.save or (self.ranks.is_main and self.save_is_due())
        if save:
            signals.save = False
        claimed: ClaimedError | None = None
        # A single process that stops or saves is checked by `save`.
        if self.ranks.n > 1 or not (stop or save):
            try:
                self.check_owner()
            except ClaimedError as error:
                claimed = error
        stop, any_save, is_claimed = self.ranks.largest(stop, save, claimed is not None)
        if is_claimed:
            raise claimed or ClaimedError("rank 0: another process now owns this run's results")
        if stop:
            signals.stop = signal.Signals(stop)
            raise Stopped
        return bool(any_save)

    def check_owner(self) -> None:
        """Check every CHECK_INTERVAL seconds that this process may still write.

        Errors: ClaimedError or UserError if it may not.
        """
        now = time.monotonic()
        if self.ranks.is_main and now - self._checked > CHECK_INTERVAL:
            self._checked = now
            with contextlib.suppress(OSError):  # a network disk that's temporarily unavailable
                self.state.check_owner()

    def keep_milestone(self) -> None:
        """Save the model to the state's directory if this step is a milestone."""
        step = self.progress.step
        if step in self.settings.milestones and (weights := self._weights()):
            self._save_model(self.state.directory / MILESTONES / str(step), weights)

    def write_results(self, results: Path) -> None:
        """Write the model, the milestones and the metrics of a finished training."""
        self.progress.seconds = time.monotonic() - self._start
        if not self.ranks.is_main:
            return
        self.state.check_owner()
        for path in milestone_files(results, self.settings.milestones):
            kept = self.state.directory / Path(path).relative_to(results)
            with atomic_write(path) as file:
                file.write(kept.read_bytes())
        self._save_model(results / "model", self.progress.kept)
        with atomic_write(results / METRICS) as file:
            file.write(self.progress.metrics)

    def _weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights on rank 0's CPU; the other ranks get none."""
        if not (self.ranks.is_main or self.ranks.is_sharded):
            return {}
        return whole(self.model.state_dict(), self.ranks)

    def _save_model(self, directory: Path, weights: dict[str, Tensor]) -> None:
        start = start_tokens(self.files)
        save_model(directory, weights, self.model.settings, self.files.tokenizer, start)


def milestone_files(results: Path, steps: Sequence[int]) -> list[str]:
    """Return the files of the milestone models at these steps."""
    return [str(results / MILESTONES / str(s) / name) for s in steps for name in MODEL_FILES]


def interval_between_saves(save_seconds: float) -> float:
    """Return NANOGPT_SAVE_INTERVAL if set; else seconds until the next save, by a save's time.

    Errors: UserError for a NANOGPT_SAVE_INTERVAL that isn't a number of seconds.
    """
    interval = save_interval()
    return max(SAVE_INTERVAL, save_seconds / SAVE_SHARE) if interval is None else interval


def _summary(line: MetricsLine) -> str:
    names = {"loss": "loss", "train_loss": "train", "val_loss": "val", "grad_norm": "norm"}
    values = [(short, getattr(line, name)) for name, short in names.items()]
    parts = [f"{short} {value:.4f}" for short, value in values if value is not None]
    if line.tokens_per_second is not None:
        parts.append(f"{line.tokens_per_second:,.0f} tokens/s")
    return ", ".join(parts)
