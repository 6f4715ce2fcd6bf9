"""The counts of one n-gram model, and the file that they are kept in: ngrams.safetensors.

At most 12 bytes of each n-gram: its last token, its count, and how many n-grams are one token
longer. In the order of the file an n-gram's context follows from its place.
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
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import atomic_write
from nanogpt.ngram.counting import count_ngrams

logger = logging.getLogger(__name__)

REMEDY = "remove it, and make it again"


@dataclass(frozen=True)
class NgramTable:
    """All n-grams of 1 to max_order tokens, by length, then context, then last token.

    n_entries: how many there are of each length. tokens: the last token of each. counts: of those
    of max_order tokens, how often each occurs; of shorter ones, after how many different tokens.
    n_children: how many n-grams one token longer begin with the empty one, and with each that is
    shorter than max_order.
    """

    vocab_size: int
    n_entries: NDArray[np.int64]
    tokens: NDArray[np.integer]
    counts: NDArray[np.uint32]
    n_children: NDArray[np.uint32]


def count(tokens: Tokens, vocab_size: int, max_order: int) -> NgramTable:
    """The n-grams of tokens (n_tokens,); shorter texts have no n-grams as long as max_order."""
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
    """Count the training split of a dataset; writes ngrams.safetensors to `path`.

    Returns one line for the terminal.

    Errors: UserError for a dataset that is absent or damaged.
    """
    files = dataset.load(dataset_directory)
    # The last ones: a split by position puts the validation split behind them, so they are nearest.
    train = files.train[-settings.max_tokens :]
    if len(train) < len(files.train):
        logger.warning(
            "%s: only the last %s of the training split's %s are counted; raise ngram.max_tokens "
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
    """A digest of all tokens' texts in the order of their ids."""
    digest = hashlib.sha256()
    for token in range(tokenizer.vocab_size):
        text = tokenizer.to_bytes([token])
        digest.update(f"{len(text)}:".encode() + text)
    return digest.hexdigest()


def save_table(path: Path, table: NgramTable, header: NgramHeader) -> None:
    """Write ngrams.safetensors, atomically; the same counts give the same bytes."""
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

    Errors: UserError for a file that is absent, damaged, of a later format, or may not be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make the run's n-grams first")
    try:
        # The first says why it can't be read; safetensors doesn't.
        with path.open("rb"), safetensors.safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get("ngrams", "")
        arrays = load_file(path)
    except PermissionError as error:
        raise UserError(
            f"{path}: can't be read: {error.strerror}; change its permissions"
        ) from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {REMEDY}") from None
    try:
        content = json.loads(text)
    except ValueError:
        raise UserError(f"{path}: no n-grams of nanogpt; {REMEDY}") from None
    header = NgramHeader.parse(content, str(path), REMEDY)
    flaw = _flaw(arrays, header)
    if flaw:
        raise UserError(f"{path}: damaged ({flaw}); {REMEDY}")
    return NgramTable(vocab_size=header.vocab_size, **arrays), header


def _flaw(arrays: dict[str, NDArray[np.generic]], header: NgramHeader) -> str | None:
    """Why arrays aren't the counts of an n-gram model, if they aren't."""
    small = np.uint16 if header.vocab_size <= 1 << 16 else np.uint32
    kinds = {"n_entries": np.int64, "tokens": small, "counts": np.uint32, "n_children": np.uint32}
    if arrays.keys() != kinds.keys():
        return f"its tensors should be {', '.join(kinds)}"
    for name, kind in kinds.items():
        if arrays[name].dtype != kind or arrays[name].ndim != 1:
            return f"{name} should be a row of {np.dtype(kind)}"
    n_entries, n_children = arrays["n_entries"], arrays["n_children"].astype(np.int64)
    tokens = arrays["tokens"].astype(np.int64)
    if not 1 <= len(n_entries) <= header.max_order or n_entries.min(initial=1) < 1:
        return f"{plural(len(n_entries), 'order')} of n-grams, of {header.max_order}"
    sizes = [1, *n_entries.tolist()]  # of the empty context, too
    if not len(tokens) == len(arrays["counts"]) == sum(sizes) - 1:
        return "n-grams are missing"
    if len(n_children) != sum(sizes[:-1]):
        return "contexts are missing"
    ends = np.cumsum(sizes)
    n_longer = np.add.reduceat(n_children, ends[:-1] - sizes[:-1])
    if n_longer.tolist() != sizes[1:]:
        return "n-grams are not those of their contexts"
    if tokens.max() >= header.vocab_size or arrays["counts"].min() < 1:
        return "a token or a count that can't be"
    keys = np.repeat(np.arange(len(n_children)), n_children) * header.vocab_size + tokens
    return None if (np.diff(keys) > 0).all() else "n-grams are not in order"
