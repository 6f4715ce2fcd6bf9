"""Training: tokens and settings in, a model directory and metrics.jsonl out.

The batch and the dropout of a step depend on nothing but the seed and the step, so a training that
was stopped resumes to the same bytes.
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
from nanogpt.errors import ClaimedError, UserError
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
    """Train a model on a dataset; writes model/, metrics.jsonl and milestones/ in `results`.

    settings: with device and dtype resolved. state: where the training is saved, and found by the
    next call, which resumes it. It's still there at the end. initial: the model directory that it
    begins with; none: random weights. ranks: the processes that train it, which all call this with
    the same arguments; rank 0 writes.

    SIGTERM and SIGINT save the state and exit with 128 + n; SIGUSR1 saves it and goes on.

    Returns the progress at the end. Its layouts are several if the training was resumed elsewhere.

    Errors: UserError for a dataset shorter than a window, a missing compiler, a state or an initial
    model that doesn't fit, a loss that isn't a number, more ranks than rows, or a rank that ends.
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
            session.save()  # for a return to these settings
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
    """A session at the first step, or where the state that was saved last is."""
    n_rows = settings.batch_size * settings.gradient_accumulation_steps
    if ranks.n > n_rows:
        raise UserError(
            f"{run}: {ranks.n} processes share the rows of a step, which has {n_rows} (batch_size "
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
        logger.info("%s: beginning with the weights of %s", run, initial)
    # Other CPUs begin with other weights.
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
        logger.info("%s: going on from step %d", run, progress.step)
    _note_layout(progress, settings, ranks)
    return Session(model, loss_of, optimizer, scaler, files, settings, progress, state, ranks)


def _make_steps(session: Session, signals: Signals) -> None:
    """Make the steps that are left. `Stopped` is raised with all in order for a save.

    The top of the loop is where a resume begins: a step is done, but not yet evaluated or logged.
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
    """Note where the training is computed from here on; warn if it was elsewhere before."""
    chooses = settings.device == "cpu" and not settings.compile and not alike.on()
    matmul = matmul_in_use() if chooses else None
    here = current_layout(settings.device, progress.step, matmul, ranks.n, sharded=ranks.is_sharded)
    if progress.layouts:
        before = progress.layouts[-1]
        changes = [
            f"{name} {getattr(before, name)} before, {getattr(here, name)} now"
            for name in Layout.model_fields
            if name != "first_step" and getattr(before, name) != getattr(here, name)
        ]
        if not changes:
            return
        if not alike.on() or here.ranks != progress.layouts[-1].ranks:
            logger.warning(
                "the training goes on at step %d with %s: the last bits of the result will not be "
                "those of one that was never stopped",
                progress.step,
                "; ".join(changes),
            )
    progress.layouts.append(here)
