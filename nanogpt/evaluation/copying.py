"""How much of what a model writes is copied from the training text."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nanogpt.config.parameters import complete
from nanogpt.config.schema import EvalSettings, SampleSettings
from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import Tokens
from nanogpt.inference.sampling import generate
from nanogpt.model.gpt import GPT
from nanogpt.model.losses import (
    window_starts,
)

# How the text is generated that is searched for copies. These aren't the run's own settings of
# samples, so that all runs compare and a change of those evaluates nothing again. Temperature 1
# without top_k is the model's own distribution. Each setting is given, because eval.json must not
# change with a default of SampleSettings; one that is added later has its neutral value here.
COPYING = complete(
    SampleSettings,
    {
        "start": "\n",  # not used: the prompts are tokens of the validation split
        "num_samples": 32,
        "max_new_tokens": 128,
        "temperature": 1.0,
        "top_k": 0,
        "seed": 1337,
        "unknown": "error",  # not used: no prompt is encoded
        "device": "cpu",  # replaced by the evaluation's, as is dtype
        "dtype": "float32",
    },
)
PROMPT_TOKENS = 16
NGRAMS = (8, 16, 32)  # tokens
SEARCHED_AT_ONCE = 1 << 16  # tokens of the training split
FILTER_BITS = 18
SEED = 1337  # of the hashes


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
