"""Measure how much of a model's output is copied from the training text."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.evaluations import CopiedShares, Copying, CopyingSettings
from nanogpt.config.parameters import complete
from nanogpt.config.schema import EvalSettings, SampleSettings
from nanogpt.data import batches as dataset
from nanogpt.data.shards import SplitTokens, read_unmapped
from nanogpt.inference.engine import Engine, Prompt, continuations
from nanogpt.model.ensemble import Model
from nanogpt.model.losses import window_starts

# Settings to generate the text that is searched for copies. They aren't the run's own sampling
# settings, so that all runs are comparable and a change of those doesn't repeat the evaluation.
# Temperature 1 without top_k is the model's own distribution. Each setting is listed, because
# eval.json must not depend on the defaults of SampleSettings. Settings that are added later have
# their neutral values here.
COPYING = complete(
    SampleSettings,
    {
        "start": "\n",  # unused: the prompts are tokens of the validation split
        "num_samples": 32,
        "max_new_tokens": 128,
        "temperature": 1.0,
        "top_k": 0,
        "seed": 1337,
        "unknown": "error",  # unused: no prompt is encoded
        "device": "cpu",  # device and dtype are replaced by the evaluation's
        "dtype": "float32",
    },
)
PROMPT_TOKENS = 16
NGRAMS = (8, 16, 32)  # lengths in tokens, each twice the previous; CopiedShares has fields for them
SEARCHED_AT_ONCE = 1 << 16  # tokens of the training split
FILTER_BITS = 18
SEED = 1337  # for the hashes


def measure_copying(
    model: Model, train: SplitTokens, val: SplitTokens, settings: EvalSettings
) -> Copying:
    """Return the share of the model's generated n-grams that occur in the training split.

    The prompts are spread evenly over the validation split. The real text after them is the
    reference: it wasn't copied.
    """
    length = min(PROMPT_TOKENS + COPYING.max_new_tokens, len(val) - 1)
    starts = window_starts(len(val), length, COPYING.num_samples)
    rows = dataset.windows(val, starts, length - 1)  # (at most num_samples, length)
    # A short split's prompts are used several times, with different random numbers.
    prompts = rows[np.arange(COPYING.num_samples) % len(rows), :PROMPT_TOKENS]
    sampling = COPYING.model_copy(update={"device": settings.device, "dtype": settings.dtype})
    seeded = [sampling.model_copy(update={"seed": COPYING.seed + n}) for n in range(len(prompts))]
    continued = continuations(Engine(model, sampling), list(map(Prompt, prompts.tolist(), seeded)))
    written = np.array(continued)  # (num_samples, max_new_tokens)
    texts = [written, rows[:, PROMPT_TOKENS:]]
    copied, reference = copied_shares(texts, train, model.vocab_size)
    return Copying(
        settings=CopyingSettings(
            prompt_tokens=PROMPT_TOKENS,
            num_samples=COPYING.num_samples,
            max_new_tokens=COPYING.max_new_tokens,
            temperature=COPYING.temperature,
            top_k=COPYING.top_k,
            seed=COPYING.seed,
        ),
        n_tokens=copied.n_tokens,
        of_8=copied.of_8,
        of_16=copied.of_16,
        of_32=copied.of_32,
        reference=reference,
    )


def copied_shares(
    texts: Sequence[NDArray[np.int64]], tokens: SplitTokens, vocab_size: int
) -> list[CopiedShares]:
    """Return the share of each text's n-grams that occur in a split; NaN without any.

    texts: rows of tokens (rows, T); n-grams don't cross rows.

    N-grams are compared by 64-bit hashes, built from a random number per token. Two different
    n-grams collide with a probability of about 2^-60. With 25,000 n-grams to find, the probability
    of a false match is about 2e-8 in a split of 10^6 tokens and 2e-4 in one of 10^10.
    """
    random = np.random.default_rng(SEED)
    number_of = random.integers(1 << 64, size=vocab_size, dtype=np.uint64)
    doublings = max(NGRAMS).bit_length() - 1
    odd = random.integers(1 << 64, size=doublings, dtype=np.uint64) | np.uint64(1)
    hashes_of = [dict(_ngram_hashes(number_of[text], odd)) for text in texts]
    sought = {n: np.unique(np.concatenate([h[n].ravel() for h in hashes_of])) for n in NGRAMS}
    found = _find(sought, (number_of[block] for block in _blocks(tokens)), odd)

    def share(hashes: NDArray[np.uint64], n: int) -> float:
        return float(np.isin(hashes, found[n]).mean()) if hashes.size else math.nan

    return [
        CopiedShares(n_tokens=text.size, **{f"of_{n}": share(hashes[n], n) for n in NGRAMS})
        for text, hashes in zip(texts, hashes_of, strict=True)
    ]


def _blocks(tokens: SplitTokens) -> Iterator[NDArray[Any]]:
    """Read a split in overlapping blocks, so that each n-gram is in one of them."""
    for first in range(0, len(tokens), SEARCHED_AT_ONCE):
        yield read_unmapped(tokens, first, first + SEARCHED_AT_ONCE + max(NGRAMS) - 1)


# Hashes of n-grams, by n.
Hashes = dict[int, NDArray[np.uint64]]


def _find(
    sought: Hashes, blocks: Iterator[NDArray[np.uint64]], multipliers: NDArray[np.uint64]
) -> Hashes:
    """Return which of the sought hashes, which are sorted, occur in the blocks."""
    is_found = {n: np.zeros(len(sought[n]), dtype=bool) for n in NGRAMS}
    # The first bits of the hashes rule out almost all of the file's shortest n-grams.
    shift = np.uint64(64 - FILTER_BITS)
    maybe = np.zeros(1 << FILTER_BITS, dtype=bool)
    maybe[sought[NGRAMS[0]] >> shift] = True
    for numbers in blocks:
        _, all_hashes = next(_ngram_hashes(numbers, multipliers))
        starts = np.flatnonzero(maybe[all_hashes >> shift])
        hashes = all_hashes[starts]
        for n in NGRAMS:
            # Both halves of a sought n-gram are sought too.
            if n > NGRAMS[0]:
                starts, hashes = _doubled(starts, hashes, n // 2, multipliers)
            if not len(hashes) or not len(sought[n]):
                break
            place = np.searchsorted(sought[n], hashes)
            is_sought = sought[n].take(place, mode="clip") == hashes
            is_found[n][place[is_sought]] = True
            starts, hashes = starts[is_sought], hashes[is_sought]
    return {n: sought[n][is_found[n]] for n in NGRAMS}


def _doubled(
    starts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    n: int,
    multipliers: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Join pairs of adjacent n-grams to 2n-grams; return their starts and hashes.

    starts, hashes: of some n-grams, in order.
    """
    second = np.searchsorted(starts, starts + n)
    has_second = starts.take(second, mode="clip") == starts + n if len(starts) else second > 0
    firsts, seconds = hashes[has_second], hashes[second[has_second]]
    return starts[has_second], firsts * multipliers[n.bit_length() - 1] + seconds


def _ngram_hashes(
    numbers: NDArray[np.uint64], multipliers: NDArray[np.uint64]
) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield each n of NGRAMS with the hashes of all n-grams along the last axis.

    Computed by doubling, modulo 2^64: h_2n(i) = m_n h_n(i) + h_n(i + n), with m_n odd and h_1 the
    numbers.
    """
    hashes, n = numbers, 1
    for multiplier in multipliers:
        hashes = hashes[..., :-n] * multiplier + hashes[..., n:]
        n *= 2
        if n in NGRAMS:
            yield n, hashes
