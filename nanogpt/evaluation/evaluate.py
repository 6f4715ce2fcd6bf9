"""eval.json: the exact loss of a model on a whole split, and where it comes from.

docs/EVALUATION.md explains each number. The loss that training logs is in nanogpt/model/losses.py.
"""

import math
from pathlib import Path

import numpy as np

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.evaluations import (
    Evaluation,
    NanogptEstimate,
    SourceEvaluation,
    SplitEvaluation,
)
from nanogpt.config.schema import EvalSettings
from nanogpt.data import batches as dataset
from nanogpt.data.batches import TokenFiles
from nanogpt.data.shards import SplitTokens
from nanogpt.errors import REMAKE, RUN_AGAIN, UserError
from nanogpt.evaluation.copying import measure_copying
from nanogpt.evaluation.mixture import evaluate_mixture
from nanogpt.evaluation.model_summary import summarize_model
from nanogpt.evaluation.reading import read_windows
from nanogpt.evaluation.statistics import (
    loss_by_kind,
    loss_by_position,
    measure_calibration,
    summarize_split,
)
from nanogpt.evaluation.survey import survey_split, survey_windows
from nanogpt.evaluation.symbols import Symbols, describe_symbols
from nanogpt.model.checkpoints import load_model
from nanogpt.model.ensemble import Model
from nanogpt.model.kernels import prepare_kernels
from nanogpt.model.losses import n_full_windows, window_starts
from nanogpt.ngram.mixing import Ngrams, load_ngrams


def evaluate(
    run: str,
    dataset_directory: Path,
    model_directory: Path,
    settings: EvalSettings,
    path: Path,
    ngrams_file: Path | None = None,
) -> Evaluation:
    """Evaluate a model on its dataset; write eval.json to `path` and return it.

    settings: with device and dtype resolved. ngrams_file: n-grams to mix with the model. Numbers of
    a diverged model can be NaN or infinite, which the file has as null.

    Errors: UserError for files that don't fit together.
    """
    prepare_kernels(settings.reproducible)
    files = dataset.load(dataset_directory)
    model = _load_model_of(files, model_directory, dataset_directory, settings)
    ngrams = _load_ngrams_of(files, ngrams_file, dataset_directory) if ngrams_file else None
    dataset.check_block_size(files, model.settings.block_size, dataset_directory.name)
    symbols = describe_symbols(files.tokenizer)
    survey = survey_split(model, files.val, symbols, settings)
    val = summarize_split(survey)
    evaluation = Evaluation(
        run=run,
        dataset=dataset_directory.name,
        val=val,
        train=_evaluate_train(model, files, symbols, settings),
        by_position=loss_by_position(survey),
        by_kind=loss_by_kind(survey),
        calibration=measure_calibration(survey),
        # We can't sample from probabilities that are NaN.
        copying=measure_copying(model, files.train, files.val, settings)
        if math.isfinite(survey.nats)
        else None,
        nanogpt_estimate=NanogptEstimate(
            train=nanogpt_estimate(model, files.train, settings),
            val=nanogpt_estimate(model, files.val, settings),
            eval_iters=settings.eval_iters,
            batch_size=settings.batch_size,
        ),
        model=summarize_model(model),
    )
    if files.meta.source:
        source = _compare_with_source(val, files.meta.source.val_bits_per_byte)
        evaluation = evaluation.model_copy(update={"source": source})
    if ngrams:
        mixture = evaluate_mixture(survey, files.val, ngrams)
        evaluation = evaluation.model_copy(update={"mixture": mixture})
    write_record(path, evaluation)
    return evaluation


def _load_model_of(
    files: TokenFiles, model_directory: Path, dataset_directory: Path, settings: EvalSettings
) -> Model:
    """Load the model and check that it was trained with the dataset's vocabulary."""
    checkpoint = load_model(model_directory, settings.device)
    if checkpoint.tokenizer != files.tokenizer:
        raise UserError(
            f"{model_directory}: trained with a different vocabulary from {dataset_directory}; "
            f"evaluate it on its own dataset, or delete the model and {RUN_AGAIN}"
        )
    return checkpoint.model


def _load_ngrams_of(files: TokenFiles, path: Path, dataset_directory: Path) -> Ngrams:
    """Load the n-grams and check that they were counted on the dataset."""
    ngrams = load_ngrams(path, files.tokenizer)
    if ngrams.header.train_sha256 != files.meta.train.sha256:
        raise UserError(
            f"{path}: its counts don't match the training split in {dataset_directory}; {REMAKE}"
        )
    return ngrams


def _evaluate_train(
    model: Model, files: TokenFiles, symbols: Symbols, settings: EvalSettings
) -> SplitEvaluation:
    """Evaluate windows spread evenly over the training split.

    There are as many as the validation split has, so both take the same time.
    """
    block_size = model.settings.block_size
    n_windows = n_full_windows(len(files.val), block_size)
    starts = window_starts(len(files.train), block_size, n_windows)
    survey = survey_windows(model, files.train, [(starts, block_size)], symbols, settings)
    return summarize_split(survey).model_copy(update={"n_windows": len(starts)})


def nanogpt_estimate(model: Model, tokens: SplitTokens, settings: EvalSettings) -> float:
    """Return nanoGPT's estimate in nats per token, over random windows. Only for comparison."""
    block_size = model.settings.block_size
    n_windows = settings.eval_iters * settings.batch_size
    random = np.random.default_rng(settings.seed)
    starts = random.integers(len(tokens) - block_size, size=n_windows)
    batches = read_windows(model, tokens, [(starts, block_size)], settings)
    nats = sum(batch.nats.double().sum().item() for batch in batches)
    return nats / (n_windows * block_size)


def _compare_with_source(val: SplitEvaluation, entropy: float) -> SourceEvaluation:
    """Return how far the model is above the source's entropy, in bits per byte."""
    excess = val.bits_per_byte - entropy
    return SourceEvaluation(
        bits_per_byte=entropy,
        excess_bits_per_byte=excess,
        excess_percent=100 * excess / entropy,
    )


def summary(evaluation: Evaluation) -> str:
    """Return the main numbers in one line."""
    val = evaluation.val
    numbers = {"nats per token": val.loss, "bits per byte": val.bits_per_byte}
    parts = [f"{number:.4f} {unit}" for unit, number in numbers.items() if math.isfinite(number)]
    of_gpt = f"validation loss {', '.join(parts) or 'is not a number'}"
    if not evaluation.mixture:
        return of_gpt
    return f"{of_gpt}; with n-grams {evaluation.mixture.across_windows.loss:.4f} nats per token"
