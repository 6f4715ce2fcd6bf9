"""eval.json: how well a model predicts a whole split, exactly, and what it gets wrong."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt.config.schema import EvalSettings
from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import Tokens
from nanogpt.errors import UserError
from nanogpt.evaluation.copying import copying
from nanogpt.evaluation.statistics import by_kind, by_position, calibration, of_split
from nanogpt.evaluation.survey import survey, survey_split
from nanogpt.evaluation.symbols import symbols
from nanogpt.files.atomic import write_json
from nanogpt.model.directories import load_model
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import (
    n_full_windows,
    window_starts,
    windows_loss,
)


def nanogpt_estimate(model: GPT, tokens: Tokens, settings: EvalSettings) -> float:
    """nanoGPT's estimate, nats per token: the mean over random windows. Only for comparison."""
    block_size = model.settings.block_size
    n_windows = settings.eval_iters * settings.batch_size
    random = np.random.default_rng(settings.seed)
    starts = random.integers(len(tokens) - block_size, size=n_windows)
    return windows_loss(model, tokens, starts, settings).mean


def evaluate(
    run: str, dataset_directory: Path, model_directory: Path, settings: EvalSettings, path: Path
) -> dict[str, Any]:
    """Evaluate a model on its dataset and write eval.json; returns what stands in it.

    settings: with device and dtype resolved. Numbers that a diverged model has not are None.
    Errors: UserError for files that do not fit together.
    """
    files = dataset.load(dataset_directory)
    checkpoint = load_model(model_directory, settings.device)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if tokenizer != files.tokenizer:
        raise UserError(
            f"{model_directory}: trained on another vocabulary than {dataset_directory}; train "
            "the run again, or evaluate it on its own dataset"
        )
    block_size = model.settings.block_size
    dataset.check_block_size(files, block_size, dataset_directory.name)
    meaning = symbols(tokenizer)
    val = survey_split(model, files.val, meaning, settings)
    # As many windows as the validation split has, so that both cost the same.
    starts = window_starts(len(files.train), block_size, n_full_windows(len(files.val), block_size))
    train = survey(model, files.train, [(starts, block_size)], meaning, settings)
    result: dict[str, Any] = {
        "run": run,
        "dataset": dataset_directory.name,
        "val": of_split(val),
        "train": {**of_split(train), "n_windows": len(starts)},
        "by_position": by_position(val),
        "by_kind": by_kind(val),
        "calibration": calibration(val),
        # Nothing can be drawn from probabilities that are no numbers.
        "copying": copying(
            model, dataset_directory / "train.bin", len(files.train), files.val, settings
        )
        if math.isfinite(val.nats)
        else None,
        "nanogpt_estimate": {
            "train": nanogpt_estimate(model, files.train, settings),
            "val": nanogpt_estimate(model, files.val, settings),
            "eval_iters": settings.eval_iters,
            "batch_size": settings.batch_size,
        },
        "model": {
            "n_parameters": model.n_parameters(),
            "vocab_size": model.vocab_size,
            **model.settings.model_dump(),
        },
    }
    if "source" in files.meta:
        entropy = files.meta["source"]["val_bits_per_byte"]
        excess = result["val"]["bits_per_byte"] - entropy
        result["source"] = {
            "bits_per_byte": entropy,
            "excess_bits_per_byte": excess,
            "excess_percent": 100 * excess / entropy,
        }
    result = _finite(result)
    write_json(path, result)
    return result


def _finite(value: Any) -> Any:
    """The same, with None for NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(result: dict[str, Any]) -> str:
    """One line with the two numbers that matter of what `evaluate` returns."""
    units = {"loss": "nats per token", "bits_per_byte": "bits per byte"}
    numbers = {units[name]: result["val"][name] for name in units}
    told = [f"{number:.4f} {unit}" for unit, number in numbers.items() if number is not None]
    return f"validation loss {', '.join(told) or 'is not a number'}"
