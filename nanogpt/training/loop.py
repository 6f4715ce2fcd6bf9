"""The training loop: tokens and settings in, a model directory and metrics.jsonl out.

The batch and the dropout of a step depend on nothing but the seed and the step, so a training that
was stopped goes on to the same bytes. What a batch is, what the model computes and how weights and
states are stored is left to the modules that this one calls; so is who may train.
"""

import contextlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tqdm import tqdm

from nanogpt import devices as device
from nanogpt.artifacts.records.manifests import Layout
from nanogpt.artifacts.records.metrics import MetricsLine
from nanogpt.artifacts.signals import Signals, Stopped, listening
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import Tokens
from nanogpt.errors import ClaimedError, DivergedError
from nanogpt.files.atomic import atomic_write
from nanogpt.model.directories import MODEL_FILES, save_model
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import window_starts, windows_loss
from nanogpt.project import save_interval
from nanogpt.training.optimizers import configure_adamw
from nanogpt.training.saved_state import Progress, load_state, remove_states, save_state
from nanogpt.training.schedules import learning_rate_at
from nanogpt.training.step import Forward, compiled, optimizer_step, use_cuda_settings

logger = logging.getLogger(__name__)

SAVE_INTERVAL = 60.0  # seconds between two states, at least
SAVE_SHARE = 0.01  # of a training's time, that saving its state may take
CHECK_INTERVAL = 5.0  # seconds between two looks whether this process may still write


@dataclass(frozen=True)
class _Training:
    """What a training works with, from its first step to its last."""

    run: str
    model: GPT
    forward: Forward
    optimizer: torch.optim.Optimizer
    files: dataset.TokenFiles
    settings: TrainSettings
    progress: Progress
    held: TrainingState


def train(
    run: str,
    dataset_directory: Path,
    model_settings: ModelSettings,
    settings: TrainSettings,
    held: TrainingState,
    results: Path,
) -> Progress:
    """Train a model on a dataset; writes model/, metrics.jsonl and milestones/ in `results`.

    settings: with device and dtype resolved. held: where the state of the training is saved, and
    found by the next call, which goes on from there. It is left there at the end.

    SIGTERM and SIGINT save the state and exit with 128 + n; SIGUSR1 saves it and goes on.

    Returns how far it came: to its end, with the layouts it was computed on, of which there are
    several if it went on elsewhere.

    Errors: UserError for a dataset shorter than a window, a missing compiler, a state that does not
    fit, or a loss that is not a number.
    """
    files = dataset.load(dataset_directory)
    dataset.check_block_size(files, model_settings.block_size, dataset_directory.name)
    use_cuda_settings(settings)
    torch.manual_seed(settings.seed)
    model = GPT(model_settings, files.tokenizer.vocab_size).to(settings.device)
    logger.info(
        "%s: %s parameters, %s in %s, %d threads",
        run,
        f"{model.n_parameters():,}",
        settings.device,
        settings.dtype,
        torch.get_num_threads(),
    )
    forward: Forward = compiled(model) if settings.compile else model
    optimizer = configure_adamw(model, settings)
    progress = load_state(held.directory, held.version, model, optimizer)
    progress = progress or Progress(held.version)
    if progress.step:
        logger.info("%s: going on from step %d", run, progress.step)
    _note_layout(progress, settings)
    training = _Training(run, model, forward, optimizer, files, settings, progress, held)
    with listening() as signals:
        try:
            _train_loop(training, signals)
        except Stopped:
            _save(training)
            assert signals.stop
            logger.info("stopped by %s at step %d", signals.stop.name, progress.step)
            raise SystemExit(128 + signals.stop) from None
        except ClaimedError:
            _save(training)  # for a return to these settings
            raise
        _write_results(training, results)
    return progress


def milestone_files(results: Path, steps: Sequence[int]) -> list[str]:
    """The files of the models that are kept of these steps, beside the last or best one."""
    return [str(results / "milestones" / str(s) / name) for s in steps for name in MODEL_FILES]


def _train_loop(training: _Training, signals: Signals) -> None:
    """Make the steps that are left. `Stopped` is raised with all in order for a save."""
    model, settings, progress = training.model, training.settings, training.progress
    rows_per_step = settings.batch_size * settings.gradient_accumulation_steps
    tokens_per_step = rows_per_step * model.settings.block_size
    start = time.monotonic() - progress.seconds
    saved = checked = time.monotonic()
    save_seconds = 0.0  # that the last save took
    step_seconds, timed_steps = 0.0, 0  # since the last line of metrics
    model.train()
    training.held.directory.mkdir(parents=True, exist_ok=True)
    # disable=None: no bar where there is no terminal; the log has plain lines.
    with (
        open(training.held.directory / "metrics.jsonl", "wb") as metrics,
        tqdm(total=settings.max_iters, initial=progress.step, unit="step", disable=None) as bar,
    ):
        metrics.write(progress.metrics)
        while True:
            # What a resume comes back to: a step is done, but not yet evaluated or written down.
            step = progress.step
            last = step == settings.max_iters
            now = time.monotonic()
            progress.seconds = now - start
            if signals.stop:
                raise Stopped
            # The last state, too, is worth a save: results are still to be written.
            interval = CHECK_INTERVAL if last else _save_interval(save_seconds)
            if signals.save or now - saved > interval:
                signals.save = False
                _save(training)
                saved = time.monotonic()
                save_seconds = saved - now
            elif now - checked > CHECK_INTERVAL:
                checked = now
                with contextlib.suppress(OSError):  # a disk over the network that is away a while
                    training.held.check_owner()
            if step in settings.milestones:
                directory = training.held.directory / "milestones" / str(step)
                save_model(directory, model.state_dict(), model.settings, training.files.tokenizer)
            line = progress.line.model_dump(exclude_unset=True) if progress.line else {}
            line |= {"step": step, "tokens": step * tokens_per_step}
            if step % settings.eval_interval == 0 or last:
                with signals.interrupting():
                    line |= _estimate(model, training.files, settings)
                best = line["val_loss"] < progress.best_val_loss
                progress.best_val_loss = min(progress.best_val_loss, line["val_loss"])
                if last if settings.keep == "last" else best:
                    weights = model.state_dict().items()
                    progress.kept = {name: w.detach().cpu().clone() for name, w in weights}
            if len(line) > 2:
                if timed_steps:
                    line["tokens_per_second"] = timed_steps * tokens_per_step / step_seconds
                    step_seconds, timed_steps = 0.0, 0
                line["seconds"] = time.monotonic() - start
                _write_line(metrics, progress, line)
                bar.set_postfix_str(_summary(line), refresh=False)
                _stop_if_diverged(line, training.held)
            if last:
                return
            step_start = time.monotonic()
            learning_rate = learning_rate_at(step, settings)
            windows = dataset.batch(
                training.files.train, model.settings.block_size, rows_per_step, settings.seed, step
            )
            loss, grad_norm = optimizer_step(
                training.forward, training.optimizer, windows, learning_rate, settings, step
            )
            progress.step = step + 1
            progress.line = None
            if (
                progress.step % settings.log_interval == 0
                or progress.step % settings.eval_interval == 0
                or progress.step == settings.max_iters
            ):
                # Reading a number waits for the device, so it belongs to the step's time.
                progress.line = MetricsLine(
                    step=progress.step,
                    tokens=progress.step * tokens_per_step,
                    loss=loss.item(),
                    learning_rate=learning_rate,
                    grad_norm=grad_norm.item(),
                )
            step_seconds += time.monotonic() - step_start
            timed_steps += 1
            bar.update()


def _save(training: _Training) -> None:
    training.held.check_lock()
    save_state(training.held.directory, training.progress, training.model, training.optimizer)
    logger.info("state saved at step %d", training.progress.step)


def _save_interval(save_seconds: float) -> float:
    """Seconds until the next save, when one takes `save_seconds`; NANOGPT_SAVE_INTERVAL if set."""
    interval = save_interval()
    return max(SAVE_INTERVAL, save_seconds / SAVE_SHARE) if interval is None else interval


def _note_layout(progress: Progress, settings: TrainSettings) -> None:
    """Add where the training goes on to its layouts; say so if that is not where it was before."""
    here = Layout(first_step=progress.step, **device.layout(settings.device))
    if progress.layouts:
        before = progress.layouts[-1]
        changes = [
            f"{name} {getattr(before, name)} before, {getattr(here, name)} now"
            for name in Layout.model_fields
            if name != "first_step" and getattr(before, name) != getattr(here, name)
        ]
        if not changes:
            return
        logger.warning(
            "the training goes on at step %d with %s: the last bits of the result will not be "
            "those of one that was never stopped",
            progress.step,
            "; ".join(changes),
        )
    progress.layouts.append(here)


def _write_results(training: _Training, results: Path) -> None:
    training.held.check_owner()
    for path in milestone_files(results, training.settings.milestones):
        kept = training.held.directory / Path(path).relative_to(results)
        with atomic_write(path) as file:
            file.write(kept.read_bytes())
    progress, model = training.progress, training.model
    save_model(results / "model", progress.kept, model.settings, training.files.tokenizer)
    with atomic_write(results / "metrics.jsonl") as file:
        file.write(progress.metrics)


def _estimate(model: GPT, files: dataset.TokenFiles, settings: TrainSettings) -> dict[str, float]:
    """Losses of both splits on eval_iters * batch_size windows, the same ones at every call."""

    def loss(tokens: Tokens) -> float:
        n_windows = settings.eval_iters * settings.batch_size
        starts = window_starts(len(tokens), model.settings.block_size, n_windows)
        return windows_loss(model, tokens, starts, settings).mean

    return {"train_loss": loss(files.train), "val_loss": loss(files.val)}


def _write_line(metrics: BinaryIO, progress: Progress, line: dict[str, Any]) -> None:
    """Append a line of metrics; JSON has no NaN or infinity, so they become null."""
    finite = {k: None if not math.isfinite(v) else v for k, v in line.items()}
    written = (json.dumps(finite) + "\n").encode()
    progress.metrics += written
    metrics.write(written)
    metrics.flush()
    logger.info("step %d: %s", line["step"], _summary(line))


def _summary(line: dict[str, Any]) -> str:
    names = {"loss": "loss", "train_loss": "train", "val_loss": "val", "grad_norm": "norm"}
    parts = [f"{short} {line[name]:.4f}" for name, short in names.items() if name in line]
    if "tokens_per_second" in line:
        parts.append(f"{line['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)


def _stop_if_diverged(line: dict[str, Any], held: TrainingState) -> None:
    for name in ("loss", "grad_norm", "train_loss", "val_loss"):
        if not math.isfinite(line.get(name, 0.0)):
            held.check_lock()
            remove_states(held.directory)  # resumed, they would lead here again
            raise DivergedError(
                f"training diverged: {name} is {line[name]} at step {line['step']}; "
                "lower learning_rate, raise warmup_iters or set grad_clip"
            )
