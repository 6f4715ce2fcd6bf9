"""The numbers in eval.json that follow from one reading of a split.

docs/EVALUATION.md explains each of them.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.evaluation.survey import BINS, Survey
from nanogpt.evaluation.symbols import KINDS

MAX_EXPONENT = 709.0

# What a split's loss is told in, and with an interval.
UNITS = ("loss", "bits_per_byte", "bits_per_character")

# The interval: constants, so that all runs' compare.
LEVEL = 0.95
RESAMPLES = 1000
FEWEST_RUNS = 10  # of windows; of fewer, resamples are too much alike
RESAMPLED_AT_ONCE = 1 << 18  # runs of windows, of 32 bytes each
SEED = 1337  # of the resamples


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
