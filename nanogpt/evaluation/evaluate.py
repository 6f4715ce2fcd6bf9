"""eval.json: how well a model predicts a whole split, exactly, and what it gets wrong.

docs/EVALUATION.md explains each number. What training measures itself with is in
nanogpt/model/losses.py.
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
from nanogpt.data.tokenizers import Tokens
from nanogpt.errors import UserError
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
    """Evaluate a model on its dataset; writes eval.json to `path` and returns it.

    settings: with device and dtype resolved. ngrams_file: of n-grams to mix with the model. What a
    diverged model has no number for is NaN or infinite, and null in the file.

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
        # Nothing can be drawn from probabilities that are NaN.
        copying=measure_copying(
            model, dataset_directory / "train.bin", len(files.train), files.val, settings
        )
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
    """The model, if it was trained on the dataset's vocabulary."""
    checkpoint = load_model(model_directory, settings.device)
    if checkpoint.tokenizer != files.tokenizer:
        raise UserError(
            f"{model_directory}: trained on another vocabulary than {dataset_directory}; train "
            "the run again, or evaluate it on its own dataset"
        )
    return checkpoint.model


def _load_ngrams_of(files: TokenFiles, path: Path, dataset_directory: Path) -> Ngrams:
    """The n-grams, if they were counted on the dataset."""
    ngrams = load_ngrams(path, files.tokenizer)
    if ngrams.header.train_sha256 != files.meta.train.sha256:
        raise UserError(
            f"{path}: counted on another training split than that of {dataset_directory}; make "
            "the run's n-grams again"
        )
    return ngrams


def _evaluate_train(
    model: Model, files: TokenFiles, symbols: Symbols, settings: EvalSettings
) -> SplitEvaluation:
    """The training split's evaluation, over windows spread evenly over it.

    As many windows as the validation split has, so that both cost the same.
    """
    block_size = model.settings.block_size
    n_windows = n_full_windows(len(files.val), block_size)
    starts = window_starts(len(files.train), block_size, n_windows)
    survey = survey_windows(model, files.train, [(starts, block_size)], symbols, settings)
    return summarize_split(survey).model_copy(update={"n_windows": len(starts)})


def nanogpt_estimate(model: Model, tokens: Tokens, settings: EvalSettings) -> float:
    """nanoGPT's estimate, nats per token: the mean over random windows. Only for comparison."""
    block_size = model.settings.block_size
    n_windows = settings.eval_iters * settings.batch_size
    random = np.random.default_rng(settings.seed)
    starts = random.integers(len(tokens) - block_size, size=n_windows)
    batches = read_windows(model, tokens, [(starts, block_size)], settings)
    nats = sum(batch.nats.double().sum().item() for batch in batches)
    return nats / (n_windows * block_size)


def _compare_with_source(val: SplitEvaluation, entropy: float) -> SourceEvaluation:
    """How far the model is above the entropy of the text's source, in bits per byte."""
    excess = val.bits_per_byte - entropy
    return SourceEvaluation(
        bits_per_byte=entropy,
        excess_bits_per_byte=excess,
        excess_percent=100 * excess / entropy,
    )


def summary(evaluation: Evaluation) -> str:
    """The two numbers that matter, in one line."""
    val = evaluation.val
    numbers = {"nats per token": val.loss, "bits per byte": val.bits_per_byte}
    parts = [f"{number:.4f} {unit}" for unit, number in numbers.items() if math.isfinite(number)]
    of_gpt = f"validation loss {', '.join(parts) or 'is not a number'}"
    if not evaluation.mixture:
        return of_gpt
    return f"{of_gpt}; with n-grams {evaluation.mixture.across_windows.loss:.4f} nats per token"
