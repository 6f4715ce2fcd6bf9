"""The numbers in eval.json that are computed from one pass over a split.

docs/EVALUATION.md explains each of them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.evaluations import (
    Calibration,
    CalibrationBin,
    Interval,
    KindOfToken,
    PositionBucket,
    SplitEvaluation,
)
from nanogpt.evaluation.survey import BINS, Survey
from nanogpt.evaluation.symbols import KINDS

MAX_EXPONENT = 709.0  # e to a larger power overflows a float

# Fixed, so that the intervals of all runs are comparable.
LEVEL = 0.95
RESAMPLES = 1000
FEWEST_RUNS = 10  # runs of windows; with fewer, resamples are too similar
RESAMPLED_AT_ONCE = 1 << 18  # runs of windows, 32 bytes each
SEED = 1337  # for the resamples


def summarize_split(survey: Survey) -> SplitEvaluation:
    """Return the loss of a split in all units, and the amount of text."""
    n_tokens, n_bytes, n_characters = survey.windows[:, 1:].sum(0)
    sums = np.array([survey.nats, n_tokens, n_bytes, n_characters])
    loss, bits_per_byte, bits_per_character = _in_units(sums).tolist()
    return SplitEvaluation(
        loss=loss,
        # A diverged model's perplexity can overflow a float.
        perplexity=math.exp(loss) if loss < MAX_EXPONENT else math.inf,
        bits_per_byte=bits_per_byte,
        bits_per_character=bits_per_character,
        n_tokens=int(n_tokens),
        n_bytes=int(n_bytes),
        n_characters=int(n_characters),
        interval=bootstrap_interval(survey.windows),
    )


def _in_units(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return nats per token, bits per byte and bits per character: (..., 3).

    sums: of nats, tokens, bytes and characters, (..., 4).
    """
    nats, n_tokens, n_bytes, n_characters = np.moveaxis(sums, -1, 0)
    bits = nats / math.log(2)
    with np.errstate(divide="ignore", invalid="ignore"):  # no bytes: all tokens are ends of texts
        return np.stack([nats / n_tokens, bits / n_bytes, bits / n_characters], axis=-1)


def bootstrap_interval(windows: NDArray[np.float64]) -> Interval:
    """Return a percentile bootstrap interval of the loss over the choice of text.

    windows: sums of nats, tokens, bytes and characters, (n_windows, 4). We draw runs of adjacent
    windows with replacement and divide the sums of each draw (Efron and Tibshirani 1993, An
    Introduction to the Bootstrap, chapters 8 and 13). Adjacent windows stay together because they
    are similar: in blocks that don't overlap (Carlstein 1986, Annals of Statistics 14), each as
    long as the cube root of n_windows.

    The interval is for the loss on endless text from this source. It doesn't cover the effect of
    the training's seed, or of choosing the best weights by this split. NaN for fewer than
    FEWEST_RUNS runs.
    """
    length = round(len(windows) ** (1 / 3))
    runs = np.add.reduceat(windows, np.arange(0, len(windows), length), axis=0)
    if len(runs) < FEWEST_RUNS:
        return _interval(0, np.full((2, 3), math.nan))
    random = np.random.default_rng(SEED)
    at_once = max(1, RESAMPLED_AT_ONCE // len(runs))
    sums = [
        runs[random.integers(len(runs), size=(rows, len(runs)))].sum(1)
        for rows in (min(at_once, RESAMPLES - i) for i in range(0, RESAMPLES, at_once))
    ]
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    with np.errstate(invalid="ignore"):
        limits = np.quantile(_in_units(np.concatenate(sums)), ends, axis=0)
    return _interval(RESAMPLES, limits)


def _interval(n_resamples: int, limits: NDArray[np.float64]) -> Interval:
    """Return the record of lower and upper limits in each unit, (2, 3)."""
    loss, bits_per_byte, bits_per_character = limits.T.tolist()
    return Interval(
        level=LEVEL,
        n_resamples=n_resamples,
        loss=loss,
        bits_per_byte=bits_per_byte,
        bits_per_character=bits_per_character,
    )


def loss_by_position(survey: Survey) -> tuple[PositionBucket, ...]:
    """Return the loss by position in the window, in buckets 0, 1, 2-3, 4-7 and so on."""
    block_size = len(survey.positions)
    firsts = [0, *(1 << i for i in range((block_size - 1).bit_length()))]
    lasts = [first - 1 for first in firsts[1:]] + [block_size - 1]
    sums = np.add.reduceat(survey.positions, firsts, axis=0).tolist()
    return tuple(
        PositionBucket(first=first, last=last, loss=nats / n_tokens, n_tokens=int(n_tokens))
        for first, last, (nats, n_tokens) in zip(firsts, lasts, sums, strict=True)
    )


def loss_by_kind(survey: Survey) -> dict[str, KindOfToken]:
    """Return the loss by kind of the predicted token, without kinds that don't occur."""
    return {
        kind: KindOfToken(
            loss=nats / n_tokens,
            n_tokens=int(n_tokens),
            share_of_loss=nats / survey.nats if survey.nats else math.nan,
        )
        for kind, (nats, n_tokens) in zip(KINDS, survey.kinds.tolist(), strict=True)
        if n_tokens
    }


def measure_calibration(survey: Survey) -> Calibration:
    """Compare the likeliest token's probability with how often it's right.

    This is the expected calibration error of Guo et al. 2017, On Calibration of Modern Neural
    Networks (arXiv:1706.04599), over equal bins (low, high] of the likeliest token's probability.
    """
    n_tokens, confidence, right = survey.bins.T
    with np.errstate(invalid="ignore"):
        means = (survey.bins[:, 1:] / n_tokens[:, None]).tolist()  # NaN in empty bins
    return Calibration(
        accuracy=float(right.sum() / n_tokens.sum()),
        expected_calibration_error=float(np.abs(right - confidence).sum() / n_tokens.sum()),
        bins=tuple(
            CalibrationBin(
                low=i / BINS,
                high=(i + 1) / BINS,
                confidence=means[i][0],
                accuracy=means[i][1],
                n_tokens=int(n_tokens[i]),
            )
            for i in range(BINS)
        ),
    )
