"""Evaluation: how well a model predicts a whole split, exactly, and what it gets wrong.

A split is read in order, in windows of block_size without overlap, the last one shorter, so that
each token but the first is predicted once; all numbers of a split are from that one reading. Which
model and which text is left to others, and so is what training measures itself with (loss.py).
docs/EVALUATION.md explains each number.
"""

import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nanogpt.config.schema import EvalSettings, SampleSettings
from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import Tokenizer, Tokens, token_characters, token_texts
from nanogpt.errors import UserError
from nanogpt.files.atomic import write_json
from nanogpt.inference.sampling import generate
from nanogpt.model.directories import load_model
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import (
    n_full_windows,
    predictions,
    token_nats,
    window_starts,
    windows_loss,
)

MAX_EXPONENT = 709.0

# What a split's loss is told in, and with an interval.
UNITS = ("loss", "bits_per_byte", "bits_per_character")

# The interval: constants, so that all runs' compare.
LEVEL = 0.95
RESAMPLES = 1000
FEWEST_RUNS = 10  # of windows; of fewer, resamples are too much alike
RESAMPLED_AT_ONCE = 1 << 18  # runs of windows, of 32 bytes each

KINDS = ("letters", "digits", "punctuation", "blank", "end_of_text", "other")
# Of Unicode's categories, by their first letter. A mark, such as a vowel of Hindi, is of a letter.
KIND_OF_CATEGORY = {
    "L": "letters",
    "M": "letters",
    "N": "digits",
    "P": "punctuation",
    "S": "punctuation",
}

BINS = 10  # of confidence

# The text that is searched for copies. Not the run's own settings of samples, so that all runs
# compare and an edit of those evaluates nothing again; temperature 1 and no top_k are the model's
# own distribution.
COPYING = SampleSettings(num_samples=32, max_new_tokens=128, temperature=1.0, top_k=0, seed=1337)
PROMPT_TOKENS = 16
NGRAMS = (8, 16, 32)  # tokens
SEARCHED_AT_ONCE = 1 << 16  # tokens of the training split
FILTER_BITS = 18

SEED = 1337  # of the resamples and of the hashes


@dataclass(frozen=True)
class Symbols:
    """What each token of a vocabulary is in text.

    counts: 1, its bytes and its characters, (V, 3). kinds: the index of its kind in KINDS, (V,).
    """

    counts: NDArray[np.int64]
    kinds: NDArray[np.int64]


def symbols(tokenizer: Tokenizer) -> Symbols:
    """What the tokens of a tokenizer are in text."""
    n_bytes = tokenizer.token_bytes
    return Symbols(
        np.stack([np.ones_like(n_bytes), n_bytes, token_characters(tokenizer)], axis=1),
        np.array([KINDS.index(kind_of(text)) for text in token_texts(tokenizer)]),
    )


def kind_of(text: bytes) -> str:
    """The one of KINDS that a token's text is: a blank before a word is a part of the word."""
    if not text:
        return "end_of_text"
    try:
        characters = text.decode("utf-8")
    except UnicodeDecodeError:
        return "other"
    if characters.isspace():
        return "blank"
    categories = {unicodedata.category(c)[0] for c in characters.removeprefix(" ")}
    kinds = {KIND_OF_CATEGORY.get(category, "other") for category in categories}
    return kinds.pop() if len(kinds) == 1 else "other"


@dataclass(frozen=True)
class Survey:
    """How the tokens of a split were predicted: sums in float64, by several orders.

    nats: all of them. windows: nats, tokens, bytes and characters of each window, (n_windows, 4).
    positions: nats and tokens at each position in a window, (block_size, 2). kinds: nats and tokens
    of each of KINDS, (6, 2). bins: tokens, confidence and right guesses in each bin of confidence,
    (BINS, 3).
    """

    nats: float
    windows: NDArray[np.float64]
    positions: NDArray[np.float64]
    kinds: NDArray[np.float64]
    bins: NDArray[np.float64]


@torch.no_grad()
def survey(
    model: GPT,
    tokens: Tokens,
    parts: Sequence[tuple[NDArray[np.int64], int]],
    meaning: Symbols,
    settings: EvalSettings,
) -> Survey:
    """Read some windows of a split once. parts: where windows start, and their common length."""
    nats, windows = 0.0, []
    positions = np.zeros((model.settings.block_size, 2))
    kinds, bins = np.zeros((len(KINDS), 2)), np.zeros((BINS, 3))
    inner_edges = np.arange(1, BINS) / BINS
    batches = [predictions(model, tokens, starts, settings, length) for starts, length in parts]
    for targets, logits in itertools.chain(*batches):
        surprise = token_nats(logits, targets)  # (B, T)
        top, guesses = logits.max(-1)
        # The likeliest token's probability is the target's times e to what their logits differ by.
        above = top - logits.gather(-1, targets[..., None])[..., 0]
        confidence = (above - surprise).exp().clamp(max=1.0).flatten().cpu().double().numpy()
        right = (guesses == targets).flatten().cpu().numpy()
        ids = targets.cpu().numpy()
        summed = surprise.cpu().double()
        nats += summed.sum().item()
        of_token = summed.numpy()
        windows.append(np.column_stack([of_token.sum(1), meaning.counts[ids].sum(1)]))
        positions[: ids.shape[1], 0] += of_token.sum(0)
        positions[: ids.shape[1], 1] += len(ids)
        kind = meaning.kinds[ids.flatten()]
        kinds += _sums(kind, len(KINDS), of_token.flatten(), None)
        bin_ = np.digitize(confidence, inner_edges, right=True)
        bins += _sums(bin_, BINS, None, confidence, right)
    return Survey(nats, np.concatenate(windows), positions, kinds, bins)


def _sums(
    index: NDArray[np.int64], size: int, *weights: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Of each weight, or of 1 where there is none, the sum by index: (size, n_weights)."""
    return np.stack([np.bincount(index, weight, size) for weight in weights], axis=1).astype(float)


def survey_split(model: GPT, tokens: Tokens, meaning: Symbols, settings: EvalSettings) -> Survey:
    """Every token of a split but the first, each predicted once."""
    block_size = model.settings.block_size
    full = n_full_windows(len(tokens), block_size)
    parts = [(block_size * np.arange(full), block_size)]
    rest = len(tokens) - 1 - full * block_size
    if rest:
        parts.append((np.array([full * block_size]), rest))
    return survey(model, tokens, parts, meaning, settings)


# --- What is said of a survey -----------------------------------------------------------------


def of_split(survey: Survey) -> dict[str, Any]:
    """What eval.json says of a split."""
    n_tokens, n_bytes, n_characters = survey.windows[:, 1:].sum(0)
    sums = np.array([survey.nats, n_tokens, n_bytes, n_characters])
    loss, bits_per_byte, bits_per_character = _in_units(sums).tolist()
    return {
        "loss": loss,
        # A diverged model's can be larger than a float.
        "perplexity": math.exp(loss) if loss < MAX_EXPONENT else math.inf,
        "bits_per_byte": bits_per_byte,
        "bits_per_character": bits_per_character,
        "n_tokens": int(n_tokens),
        "n_bytes": int(n_bytes),
        "n_characters": int(n_characters),
        "interval": interval(survey.windows),
    }


def _in_units(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums (..., 4) of nats, tokens, bytes and characters in each of UNITS: (..., 3)."""
    nats, n_tokens, n_bytes, n_characters = np.moveaxis(sums, -1, 0)
    bits = nats / math.log(2)
    with np.errstate(divide="ignore", invalid="ignore"):  # text without bytes: only ends of texts
        return np.stack([nats / n_tokens, bits / n_bytes, bits / n_characters], axis=-1)


def interval(windows: NDArray[np.float64]) -> dict[str, Any]:
    """How far the loss is that of the text which happened to be read: percentile bootstrap.

    Runs of neighbouring windows, of (n_windows, 4), are drawn again with replacement, and the sums
    of what was drawn divided: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters
    8 and 13. Neighbours stay together because they resemble each other: blocks that do not overlap
    (Carlstein 1986, Annals of Statistics 14), each of the third root of n_windows.

    It is of the loss on endless text of this source. It does not cover the seeds of training, nor
    that the best weights were chosen by this split. NaN for fewer than FEWEST_RUNS.
    """
    length = round(len(windows) ** (1 / 3))
    runs = np.add.reduceat(windows, np.arange(0, len(windows), length), axis=0)
    if len(runs) < FEWEST_RUNS:
        none = [math.nan, math.nan]
        return {"level": LEVEL, "n_resamples": 0, **dict.fromkeys(UNITS, none)}
    random = np.random.default_rng(SEED)
    at_once = max(1, RESAMPLED_AT_ONCE // len(runs))
    sums = [
        runs[random.integers(len(runs), size=(rows, len(runs)))].sum(1)
        for rows in (min(at_once, RESAMPLES - i) for i in range(0, RESAMPLES, at_once))
    ]
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    with np.errstate(invalid="ignore"):
        limits = np.quantile(_in_units(np.concatenate(sums)), ends, axis=0)  # (2, 3)
    of_units = dict(zip(UNITS, limits.T.tolist(), strict=True))
    return {"level": LEVEL, "n_resamples": RESAMPLES, **of_units}


def by_position(survey: Survey) -> list[dict[str, Any]]:
    """The loss by position in the window, in buckets 0, 1, 2-3, 4-7 and so on."""
    block_size = len(survey.positions)
    firsts = [0, *(1 << i for i in range((block_size - 1).bit_length()))]
    lasts = [first - 1 for first in firsts[1:]] + [block_size - 1]
    sums = np.add.reduceat(survey.positions, firsts, axis=0).tolist()
    return [
        {"first": first, "last": last, "loss": nats / n_tokens, "n_tokens": int(n_tokens)}
        for first, last, (nats, n_tokens) in zip(firsts, lasts, sums, strict=True)
    ]


def by_kind(survey: Survey) -> dict[str, dict[str, Any]]:
    """The loss by kind of the predicted token; kinds that do not occur are left out."""
    return {
        kind: {
            "loss": nats / n_tokens,
            "n_tokens": int(n_tokens),
            "share_of_loss": nats / survey.nats if survey.nats else math.nan,
        }
        for kind, (nats, n_tokens) in zip(KINDS, survey.kinds.tolist(), strict=True)
        if n_tokens
    }


def calibration(survey: Survey) -> dict[str, Any]:
    """Is the likeliest token as often right as the model is sure of it?

    The expected calibration error of Guo et al. 2017, On Calibration of Modern Neural Networks
    (arXiv:1706.04599), over equal bins (low, high] of the likeliest token's probability.
    """
    n_tokens, confidence, right = survey.bins.T
    with np.errstate(invalid="ignore"):
        means = (survey.bins[:, 1:] / n_tokens[:, None]).tolist()  # NaN in empty bins
    return {
        "accuracy": float(right.sum() / n_tokens.sum()),
        "expected_calibration_error": float(np.abs(right - confidence).sum() / n_tokens.sum()),
        "bins": [
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "confidence": means[i][0],
                "accuracy": means[i][1],
                "n_tokens": int(n_tokens[i]),
            }
            for i in range(BINS)
        ],
    }


# --- Copies of the training text --------------------------------------------------------------


def copying(
    model: GPT, train: Path, n_train: int, val: Tokens, settings: EvalSettings
) -> dict[str, Any]:
    """Which share of the n-grams that the model writes stands in the training split.

    train: the file of its n_train tokens, in val's dtype. The prompts are spread evenly over the
    validation split; how that goes on after them is the reference: the share that a text has which
    was not copied.
    """
    length = min(PROMPT_TOKENS + COPYING.max_new_tokens, len(val) - 1)
    starts = window_starts(len(val), length, COPYING.num_samples)
    rows = dataset.windows(val, starts, length - 1)  # (at most num_samples, length)
    # A short split's prompts serve several times; each row draws its own tokens.
    prompts = rows[np.arange(COPYING.num_samples) % len(rows), :PROMPT_TOKENS]
    own = COPYING.model_copy(update={"device": settings.device, "dtype": settings.dtype})
    steps = generate(model, torch.from_numpy(prompts).to(settings.device), own)
    written = torch.stack(list(steps), dim=1).cpu().numpy()  # (num_samples, max_new_tokens)
    texts = [written, rows[:, PROMPT_TOKENS:]]
    shares = shares_found(texts, train, n_train, val.dtype, model.vocab_size)
    of_written, of_reference = (
        {"n_tokens": text.size, **shares_of_text}
        for text, shares_of_text in zip(texts, shares, strict=True)
    )
    names = {"num_samples", "max_new_tokens", "temperature", "top_k", "seed"}
    return {
        "settings": {"prompt_tokens": PROMPT_TOKENS, **COPYING.model_dump(include=names)},
        **of_written,
        "reference": of_reference,
    }


def shares_found(
    texts: Sequence[NDArray[np.int64]],
    path: Path,
    n_tokens: int,
    dtype: np.dtype[Any],
    vocab_size: int,
) -> list[dict[str, float]]:
    """Of each text's n-grams, the share that stands in a token file, for each n of NGRAMS.

    texts: rows of tokens (rows, T); no n-gram goes from a row to the next. NaN where there is none.

    N-grams are found by 64-bit hashes, made of a random number for each token. Two different ones
    get the same with a probability of about 2^-60. So if 25,000 are sought, the probability that
    one is found which is not there is about 2e-8 in a file of 10^6 tokens, 2e-4 in one of 10^10.
    """
    random = np.random.default_rng(SEED)
    number_of = random.integers(1 << 64, size=vocab_size, dtype=np.uint64)
    doublings = max(NGRAMS).bit_length() - 1
    odd = random.integers(1 << 64, size=doublings, dtype=np.uint64) | np.uint64(1)
    hashes_of = [dict(_ngram_hashes(number_of[text], odd)) for text in texts]
    sought = {n: np.unique(np.concatenate([h[n].ravel() for h in hashes_of])) for n in NGRAMS}
    found = {n: np.zeros(len(sought[n]), dtype=bool) for n in NGRAMS}
    # Nearly all n-grams of the file are told by their hash's first bits not to be sought.
    shift = np.uint64(64 - FILTER_BITS)
    maybe = {n: np.zeros(1 << FILTER_BITS, dtype=bool) for n in NGRAMS}
    for n in NGRAMS:
        maybe[n][sought[n] >> shift] = True
    # Not through the map: all of a large file would come to stand in memory.
    for first in range(0, n_tokens, SEARCHED_AT_ONCE):
        count, offset = SEARCHED_AT_ONCE + max(NGRAMS) - 1, first * dtype.itemsize
        block = number_of[np.fromfile(path, dtype, count, offset=offset)]
        for n, hashes in _ngram_hashes(block, odd):
            candidates = hashes[maybe[n][hashes >> shift]]
            if len(candidates):
                place = np.searchsorted(sought[n], candidates)
                place = place[sought[n].take(place, mode="clip") == candidates]
                found[n][place] = True

    def share(hashes: NDArray[np.uint64], n: int) -> float:
        return float(np.isin(hashes, sought[n][found[n]]).mean()) if hashes.size else math.nan

    return [{str(n): share(hashes[n], n) for n in NGRAMS} for hashes in hashes_of]


def _ngram_hashes(
    numbers: NDArray[np.uint64], multipliers: NDArray[np.uint64]
) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Each n of NGRAMS with the hashes of all n-grams along the last axis.

    By doubling, modulo 2^64: h_2n(i) = m_n h_n(i) + h_n(i + n), m_n odd; h_1 are the numbers.
    """
    hashes, n = numbers, 1
    for multiplier in multipliers:
        hashes = hashes[..., :-n] * multiplier + hashes[..., n:]
        n *= 2
        if n in NGRAMS:
            yield n, hashes


# --- All of it --------------------------------------------------------------------------------


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
