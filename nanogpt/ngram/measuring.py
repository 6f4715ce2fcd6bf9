"""Write ngram.json: how well a token can be predicted from the few before it, by counting alone.

It's a baseline for GPTs: models of orders 1 to 5, counted on the training split and evaluated on
the same tokens of the validation split as eval.json.
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

# They take 1.6 GB of memory if nearly all n-grams differ. Memory is proportional to this number.
MAX_TRAIN_TOKENS = 8_000_000


def measure(dataset_directory: Path, path: Path) -> NgramEvaluation:
    """Evaluate the n-gram models of a dataset; write ngram.json to `path` and return it.

    Errors: UserError for a dataset that's missing or damaged.
    """
    files = dataset.load(dataset_directory)
    # The last tokens, because in a split by position the validation split follows them.
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
    """The bytes and characters of the validation split without its first token."""
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
        # A split that's only `<|endoftext|>` tokens has no bytes and no characters.
        bits_per_byte=nats / math.log(2) / n_bytes if n_bytes else math.nan,
        bits_per_character=nats / math.log(2) / n_characters if n_characters else math.nan,
        n_tokens=n_tokens,
        n_bytes=n_bytes,
        n_characters=n_characters,
    )


def summary(evaluation: NgramEvaluation) -> str:
    """Describe the model with the lowest loss in one line."""
    best = evaluation.best
    return f"n-grams of order {best.order}: {best.loss:.4f} nats per token"
