"""The counts of one n-gram model, and their file, ngrams.safetensors.

Each n-gram takes at most 12 bytes: its last token, its count, and the number of n-grams that
extend it by one token. Its context isn't stored, because it follows from the n-gram's position.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from nanogpt.artifacts.records.ngram_counts import NgramHeader
from nanogpt.config.schema import NgramSettings
from nanogpt.data import batches as dataset
from nanogpt.data.tokenizers import Tokenizer, Tokens
from nanogpt.errors import REMAKE, UserError, plural
from nanogpt.files.atomic import atomic_write
from nanogpt.ngram.counting import count_ngrams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NgramTable:
    """All n-grams of 1 to max_order tokens, sorted by length, then context, then last token.

    n_entries: the number of n-grams of each length. tokens: the last token of each. counts: for
    n-grams of max_order tokens, how often each occurs; for shorter ones, how many different tokens
    precede it. n_children: for the empty n-gram and each one shorter than max_order, the number of
    n-grams that extend it by one token.
    """

    vocab_size: int
    n_entries: NDArray[np.int64]
    tokens: NDArray[np.integer]
    counts: NDArray[np.uint32]
    n_children: NDArray[np.uint32]


def count(tokens: Tokens, vocab_size: int, max_order: int) -> NgramTable:
    """Count the n-grams of tokens (n_tokens,), up to max_order or the length of the text."""
    max_order = min(max_order, len(tokens))
    small = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    last, counts, n_children = [], [], []
    for ngrams in count_ngrams(tokens, vocab_size, max_order):
        last.append((ngrams.keys % vocab_size).astype(small))
        kept = ngrams.occurrences if ngrams.predecessors is None else ngrams.predecessors
        counts.append(kept.astype(np.uint32))
        contexts = ngrams.keys // vocab_size
        n_children.append(np.bincount(contexts, minlength=ngrams.n_contexts).astype(np.uint32))
    return NgramTable(
        vocab_size,
        np.array(list(map(len, last)), dtype=np.int64),
        np.concatenate(last),
        np.concatenate(counts),
        np.concatenate(n_children),
    )


def count_split(dataset_directory: Path, settings: NgramSettings, path: Path) -> str:
    """Count the n-grams of a dataset's training split, and write ngrams.safetensors to `path`.

    Returns one line for the terminal.

    Errors: UserError for a dataset that's missing or damaged.
    """
    files = dataset.load(dataset_directory)
    # The last tokens, because in a split by position the validation split follows them.
    train = files.train[-settings.max_tokens :]
    if len(train) < len(files.train):
        logger.warning(
            "%s: counting only the last %s of the training split's %s; raise ngram.max_tokens "
            "to count more, which needs more memory",
            dataset_directory,
            f"{len(train):,}",
            plural(len(files.train), "token"),
        )
    table = count(train, files.tokenizer.vocab_size, settings.max_order)
    header = NgramHeader(
        max_order=settings.max_order,
        weight=settings.weight,
        caution=settings.caution,
        vocab_size=files.tokenizer.vocab_size,
        vocabulary=vocabulary_digest(files.tokenizer),
        train_sha256=files.meta.train.sha256,
        n_tokens=len(train),
    )
    save_table(path, table, header)
    return (
        f"{plural(len(table.counts), 'n-gram')} of up to {plural(settings.max_order, 'token')}, "
        f"weight {settings.weight:g}"
    )


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """A digest of the texts of all tokens, by id."""
    digest = hashlib.sha256()
    for token in range(tokenizer.vocab_size):
        text = tokenizer.to_bytes([token])
        digest.update(f"{len(text)}:".encode() + text)
    return digest.hexdigest()


def save_table(path: Path, table: NgramTable, header: NgramHeader) -> None:
    """Write ngrams.safetensors atomically. The same counts give the same bytes."""
    arrays = {
        "n_entries": table.n_entries,
        "tokens": table.tokens,
        "counts": table.counts,
        "n_children": table.n_children,
    }
    with atomic_write(path) as file:
        file.write(save(arrays, {"ngrams": json.dumps(header.content())}))


def load_table(path: Path) -> tuple[NgramTable, NgramHeader]:
    """Read ngrams.safetensors.

    Errors: UserError for a file that's missing, damaged, unreadable, or in a later format.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the workflow to count the run's n-grams")
    try:
        # open() raises an error with a reason; safetensors doesn't.
        with path.open("rb"), safetensors.safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get("ngrams", "")
        arrays = load_file(path)
    except PermissionError as error:
        raise UserError(
            f"{path}: can't be read: {error.strerror}; change its permissions"
        ) from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {REMAKE}") from None
    try:
        content = json.loads(text)
    except ValueError:
        raise UserError(f"{path}: not an n-gram file of nanogpt; {REMAKE}") from None
    header = NgramHeader.parse(content, str(path), REMAKE)
    flaw = _flaw(arrays, header)
    if flaw:
        raise UserError(f"{path}: damaged ({flaw}); {REMAKE}")
    return NgramTable(vocab_size=header.vocab_size, **arrays), header


def _flaw(arrays: dict[str, NDArray[np.generic]], header: NgramHeader) -> str | None:
    """Describe why arrays aren't the counts of an n-gram model; None if they are."""
    small = np.uint16 if header.vocab_size <= 1 << 16 else np.uint32
    kinds = {"n_entries": np.int64, "tokens": small, "counts": np.uint32, "n_children": np.uint32}
    if arrays.keys() != kinds.keys():
        return f"its tensors should be {', '.join(kinds)}"
    for name, kind in kinds.items():
        if arrays[name].dtype != kind or arrays[name].ndim != 1:
            return f"{name} should be a one-dimensional array of {np.dtype(kind)}"
    n_entries, n_children = arrays["n_entries"], arrays["n_children"].astype(np.int64)
    tokens = arrays["tokens"].astype(np.int64)
    if not 1 <= len(n_entries) <= header.max_order or n_entries.min(initial=1) < 1:
        return f"it has {plural(len(n_entries), 'order')} of n-grams, not 1 to {header.max_order}"
    sizes = [1, *n_entries.tolist()]  # starts with the empty context
    if not len(tokens) == len(arrays["counts"]) == sum(sizes) - 1:
        return "n-grams are missing"
    if len(n_children) != sum(sizes[:-1]):
        return "contexts are missing"
    ends = np.cumsum(sizes)
    n_longer = np.add.reduceat(n_children, ends[:-1] - sizes[:-1])
    if n_longer.tolist() != sizes[1:]:
        return "n-grams don't match their contexts"
    if tokens.max() >= header.vocab_size or arrays["counts"].min() < 1:
        return "a token or a count is out of range"
    keys = np.repeat(np.arange(len(n_children)), n_children) * header.vocab_size + tokens
    return None if (np.diff(keys) > 0).all() else "n-grams aren't sorted"
