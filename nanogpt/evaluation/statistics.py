"""The numbers in eval.json that follow from one reading of a split.

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

MAX_EXPONENT = 709.0  # e to a larger power is no float

# The interval's: constants, so that the intervals of all runs compare.
LEVEL = 0.95
RESAMPLES = 1000
FEWEST_RUNS = 10  # of windows; of fewer, resamples are too much alike
RESAMPLED_AT_ONCE = 1 << 18  # runs of windows, of 32 bytes each
SEED = 1337  # of the resamples


def summarize_split(survey: Survey) -> SplitEvaluation:
    """The loss of a split in all units, and how much text it is of."""
    n_tokens, n_bytes, n_characters = survey.windows[:, 1:].sum(0)
    sums = np.array([survey.nats, n_tokens, n_bytes, n_characters])
    loss, bits_per_byte, bits_per_character = _in_units(sums).tolist()
    return SplitEvaluation(
        loss=loss,
        # A diverged model's can be larger than a float.
        perplexity=math.exp(loss) if loss < MAX_EXPONENT else math.inf,
        bits_per_byte=bits_per_byte,
        bits_per_character=bits_per_character,
        n_tokens=int(n_tokens),
        n_bytes=int(n_bytes),
        n_characters=int(n_characters),
        interval=bootstrap_interval(survey.windows),
    )


def _in_units(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nats per token, bits per byte, bits per character: (..., 3).

    sums: of nats, tokens, bytes and characters, (..., 4).
    """
    nats, n_tokens, n_bytes, n_characters = np.moveaxis(sums, -1, 0)
    bits = nats / math.log(2)
    with np.errstate(divide="ignore", invalid="ignore"):  # text without bytes: only ends of texts
        return np.stack([nats / n_tokens, bits / n_bytes, bits / n_characters], axis=-1)


def bootstrap_interval(windows: NDArray[np.float64]) -> Interval:
    """How far the loss depends on which text happened to be read: percentile bootstrap.

    windows: sums of nats, tokens, bytes and characters, (n_windows, 4). Runs of neighbouring
    windows are drawn again with replacement, and the sums of what was drawn divided: Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13. Neighbours stay together
    because they resemble each other: blocks that don't overlap (Carlstein 1986, Annals of
    Statistics 14), each of the third root of n_windows.

    The interval is that of the loss on endless text from this source. It doesn't cover the seeds
    of training, nor that the best weights were chosen by this split. NaN for fewer than FEWEST_RUNS
    runs.
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
    """The record of lower and upper limits in each unit, (2, 3)."""
    loss, bits_per_byte, bits_per_character = limits.T.tolist()
    return Interval(
        level=LEVEL,
        n_resamples=n_resamples,
        loss=loss,
        bits_per_byte=bits_per_byte,
        bits_per_character=bits_per_character,
    )


def loss_by_position(survey: Survey) -> tuple[PositionBucket, ...]:
    """The loss by position in the window, in buckets 0, 1, 2-3, 4-7 and so on."""
    block_size = len(survey.positions)
    firsts = [0, *(1 << i for i in range((block_size - 1).bit_length()))]
    lasts = [first - 1 for first in firsts[1:]] + [block_size - 1]
    sums = np.add.reduceat(survey.positions, firsts, axis=0).tolist()
    return tuple(
        PositionBucket(first=first, last=last, loss=nats / n_tokens, n_tokens=int(n_tokens))
        for first, last, (nats, n_tokens) in zip(firsts, lasts, sums, strict=True)
    )


def loss_by_kind(survey: Survey) -> dict[str, KindOfToken]:
    """The loss by kind of the predicted token; kinds that don't occur are left out."""
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
    """Whether the likeliest token is as often right as the model is sure of it.

    The expected calibration error of Guo et al. 2017, On Calibration of Modern Neural Networks
    (arXiv:1706.04599), over equal bins (low, high] of the likeliest token's probability.
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
