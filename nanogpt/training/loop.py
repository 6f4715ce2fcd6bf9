"""Training: from tokens and settings to a model directory and metrics.jsonl.

The batch and the dropout of a step depend only on the seed and the step. So a resumed training
gives the same bytes as an uninterrupted one.
"""

import logging
from pathlib import Path

import torch

from nanogpt.artifacts.layouts import current_layout
from nanogpt.artifacts.records.manifests import Layout
from nanogpt.artifacts.signals import Signals, Stopped, listening
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.data.batches import check_block_size, load
from nanogpt.errors import ClaimedError, UserError, plural
from nanogpt.model import alike
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import keep_matmul, matmul_in_use
from nanogpt.training.distributed import ALONE, Ranks
from nanogpt.training.initial import load_initial
from nanogpt.training.optimizers import configure_optimizer
from nanogpt.training.saved_state import Progress, find_state, read_state
from nanogpt.training.session import Session
from nanogpt.training.sharding import check_sharding, shard
from nanogpt.training.step import loss_function, loss_scaler, prepare_process

logger = logging.getLogger(__name__)


def train(
    run: str,
    dataset_directory: Path,
    model_settings: ModelSettings,
    settings: TrainSettings,
    state: TrainingState,
    results: Path,
    initial: Path | None = None,
    ranks: Ranks = ALONE,
) -> Progress:
    """Train a model on a dataset; write model/, metrics.jsonl and milestones/ in `results`.

    settings: with device and dtype resolved. state: the directory to save the training in, and to
    resume it from; it still exists at the end. initial: a model directory with the initial weights;
    None: random weights. ranks: the processes that train together. They all call this function with
    the same arguments, and rank 0 writes the results.

    SIGTERM and SIGINT save the state and exit with 128 + n. SIGUSR1 saves it and continues.

    Returns the final progress, which has several layouts if the training was resumed elsewhere.

    Errors: UserError for a dataset shorter than a window, a missing compiler, a state or initial
    model that doesn't fit, a loss that's NaN or infinite, more ranks than rows, or a lost rank.
    """
    settings = settings.model_copy(update={"device": ranks.device(settings.device)})
    session = _prepare(run, dataset_directory, model_settings, settings, state, initial, ranks)
    with listening() as signals:
        try:
            _make_steps(session, signals)
        except Stopped:
            session.save()
            assert signals.stop
            logger.info("stopped by %s at step %d", signals.stop.name, session.progress.step)
            raise SystemExit(128 + signals.stop) from None
        except ClaimedError:
            session.save()  # so that a later run with these settings can resume
            raise
        session.write_results(results)
    return session.progress


def _prepare(
    run: str,
    dataset_directory: Path,
    model_settings: ModelSettings,
    settings: TrainSettings,
    state: TrainingState,
    initial: Path | None = None,
    ranks: Ranks = ALONE,
) -> Session:
    """Create a session at the first step, or at the last saved state."""
    n_rows = settings.batch_size * settings.gradient_accumulation_steps
    if ranks.n > n_rows:
        raise UserError(
            f"{run}: {ranks.n} processes can't share a step of {plural(n_rows, 'row')} (batch_size "
            f"{settings.batch_size} x gradient_accumulation_steps "
            f"{settings.gradient_accumulation_steps}); start at most {n_rows}"
        )
    if ranks.is_sharded:
        check_sharding(settings, ranks, run)
    files = load(dataset_directory)
    check_block_size(files, model_settings.block_size, dataset_directory.name)
    prepare_process(settings)
    torch.manual_seed(settings.seed)
    model = GPT(model_settings, files.tokenizer.vocab_size)
    logger.info(
        "%s: %s parameters, %s in %s, %d threads",
        run,
        f"{model.n_parameters():,}",
        settings.device,
        settings.dtype,
        torch.get_num_threads(),
    )
    saved = find_state(state.directory, state.version, ranks)
    if initial and not saved:
        load_initial(model, files.tokenizer, initial, run)
        logger.info("%s: starting from the weights in %s", run, initial)
    # Initial weights depend on the CPU, so all ranks use those of rank 0.
    ranks.copy_from(0, list(model.parameters()))
    if ranks.is_sharded:
        shard(model, settings.device, ranks)
    else:
        model.to(settings.device)
    loss_of = loss_function(model, settings)
    optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
    progress = Progress(state.version)
    if saved:
        progress = read_state(saved, model, optimizer, scaler, ranks)
    if progress.layouts and progress.layouts[-1].matmul:
        keep_matmul(progress.layouts[-1].matmul)
    if progress.step:
        logger.info("%s: resuming from step %d", run, progress.step)
    _note_layout(progress, settings, ranks)
    return Session(model, loss_of, optimizer, scaler, files, settings, progress, state, ranks)


def _make_steps(session: Session, signals: Signals) -> None:
    """Make the remaining steps. If `Stopped` is raised, the session is ready to be saved.

    A resume starts at the top of the loop, where a step is done but not yet evaluated or logged.
    """
    session.model.train()
    with session.writing():
        while True:
            if session.agree(signals):
                session.save()
            session.keep_milestone()
            line = session.evaluate(signals)
            if line is not None:
                session.log(line)
                session.stop_if_diverged(line)
            if session.is_last:
                return
            session.step()


def _note_layout(progress: Progress, settings: TrainSettings, ranks: Ranks) -> None:
    """Record the layout that the training now uses; warn if it was different before."""
    chooses = settings.device == "cpu" and not settings.compile and not alike.on()
    matmul = matmul_in_use() if chooses else None
    layout = current_layout(
        settings.device, progress.step, matmul, ranks.n, sharded=ranks.is_sharded
    )
    if progress.layouts:
        previous = progress.layouts[-1]
        changes = [
            f"{name}: {getattr(previous, name)} before, {getattr(layout, name)} now"
            for name in Layout.model_fields
            if name != "first_step" and getattr(previous, name) != getattr(layout, name)
        ]
        if not changes:
            return
        if not alike.on() or layout.ranks != progress.layouts[-1].ranks:
            logger.warning(
                "resuming at step %d on a different setup (%s): the last bits of the result will "
                "differ from an uninterrupted training's",
                progress.step,
                "; ".join(changes),
            )
    progress.layouts.append(layout)
