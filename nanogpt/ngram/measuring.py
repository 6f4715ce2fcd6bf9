"""ngram.json: how well the few tokens before a token predict it, by counting alone.

A baseline beside a GPT: models of orders 1 to 5, counted on the training split, and measured on the
tokens of the validation split that eval.json is about too.
"""

import math
from pathlib import Path

import numpy as np

from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.ngrams import NgramEvaluation, NgramOrder
from nanogpt.data import batches as dataset
from nanogpt.data.batches import TokenFiles
from nanogpt.data.tokenizers import token_characters
from nanogpt.ngram.probabilities import BLOCK, fit

METHOD = "interpolated modified Kneser-Ney"

# 1.6 GB of memory if nearly all n-grams differ; more tokens need as much more.
MAX_TRAIN_TOKENS = 8_000_000


def measure(dataset_directory: Path, path: Path) -> NgramEvaluation:
    """Measure the models of a dataset; writes ngram.json to `path` and returns it.

    Errors: UserError for a dataset that is absent or damaged.
    """
    files = dataset.load(dataset_directory)
    # The last ones: a split by position puts the validation split behind them, so they are nearest.
    train = files.train[-MAX_TRAIN_TOKENS:]
    total = fit(train, files.tokenizer.vocab_size).nats(files.val)
    n_bytes, n_characters = _size_of_val(files)
    evaluation = NgramEvaluation(
        dataset=dataset_directory.name,
        method=METHOD,
        n_train_tokens=len(train),
        orders=tuple(
            _summarize_order(order, nats, len(files.val) - 1, n_bytes, n_characters)
            for order, nats in enumerate(total.tolist(), start=1)
        ),
    )
    write_record(path, evaluation)
    return evaluation


def _size_of_val(files: TokenFiles) -> tuple[int, int]:
    """Bytes and characters of the validation split after its first token."""
    occurrences = sum(
        np.bincount(files.val[start : start + BLOCK], minlength=files.tokenizer.vocab_size)
        for start in range(1, len(files.val), BLOCK)
    )
    n_bytes = int((occurrences * files.tokenizer.token_bytes).sum())
    n_characters = int((occurrences * token_characters(files.tokenizer)).sum())
    return n_bytes, n_characters


def _summarize_order(
    order: int, nats: float, n_tokens: int, n_bytes: int, n_characters: int
) -> NgramOrder:
    return NgramOrder(
        order=order,
        loss=nats / n_tokens,
        perplexity=math.exp(nats / n_tokens),
        # A split of ends of texts alone has neither bytes nor characters.
        bits_per_byte=nats / math.log(2) / n_bytes if n_bytes else math.nan,
        bits_per_character=nats / math.log(2) / n_characters if n_characters else math.nan,
        n_tokens=n_tokens,
        n_bytes=n_bytes,
        n_characters=n_characters,
    )


def summary(evaluation: NgramEvaluation) -> str:
    """The model with the lowest loss, and that loss, in one line."""
    best = evaluation.best
    return f"n-grams of order {best.order}: {best.loss:.4f} nats per token"
