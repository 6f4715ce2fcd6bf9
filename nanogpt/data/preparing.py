"""Preparation: the files of a corpus become token files, as a stream and in constant memory.

Four steps: `count` a group of files, `merge` the counts into a plan and a tokenizer, `encode` a
group, `gather` the groups. The workflow runs them as jobs of their own for a corpus of many files;
for a single one, `prepare` takes them all. The bytes depend on no grouping or number of threads.
Formats and encodings are left to corpus.py, the reading of token files to dataset.py.
"""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from tqdm import tqdm

from nanogpt.config.schema import Corpus, Dataset
from nanogpt.data import play as playwright
from nanogpt.data.byte_pairs import separated_at, train_byte_pairs
from nanogpt.data.encodings import OnBytesRead, decide_encoding
from nanogpt.data.formats import read_documents
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import (
    ByteTokenizer,
    Tokenizer,
    Tokens,
    char_tokenizer,
    code_points,
    token_dtype,
)
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import atomic_write, read_json, sha256_file, write_json

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
COUNTED = ("n_tokens", "n_characters", "n_bytes", "n_documents")

BATCH = 1 << 18  # characters that a thread takes at once
# Characters without a place where byte pairs can be cut, which must be held and joined as one.
LONGEST_UNCUT = 1 << 22
MANY_DOCUMENTS = 100  # from here on `split: auto` goes by document

Item = TypeVar("Item")
Result = TypeVar("Result")


class Piece(NamedTuple):
    """A part of a document, the split that it belongs to, and its file, for messages."""

    split: str
    text: str
    ends_document: bool
    path: str


def count(files: Sequence[Path], corpus: Corpus, threads: int = 1) -> dict[str, Any]:
    """What the first pass over some files finds, as JSON has it.

    files: each one's encoding, sha256, counts, and, where it is one document, a hash of its text;
    their sums; characters: all that occur, sorted.

    Errors: UserError for what cannot be read or is not text, and for a wrong sha256.
    """
    occurs = np.zeros(0x110000, dtype=np.bool_)
    counted = []
    with ThreadPoolExecutor(threads) as pool, _progress("count", files) as progress:
        for path in files:
            digest = pool.submit(sha256_file, path)
            if corpus.sha256 and digest.result() != corpus.sha256:
                raise UserError(
                    f"{path}: its sha256 is {digest.result()}, but config.yaml says "
                    f"{corpus.sha256}; correct it, or remove a download to make it again"
                )
            encoding = decide_encoding(path, corpus)
            found = _count_file(path, corpus, encoding, occurs, pool, threads, progress.update)
            counted.append({"path": str(path), "sha256": digest.result(), **found})
    return {
        "files": counted,
        "n_documents": sum(file["n_documents"] for file in counted),
        "n_characters": sum(file["n_characters"] for file in counted),
        "characters": "".join(map(chr, np.flatnonzero(occurs))),
    }


def _count_file(
    path: Path,
    corpus: Corpus,
    encoding: str,
    occurs: Any,
    pool: ThreadPoolExecutor,
    threads: int,
    progress: OnBytesRead,
) -> dict[str, Any]:
    n_documents = n_characters = n_bytes = 0
    text_hash = hashlib.sha256()

    def counted() -> Iterator[str]:
        nonlocal n_documents, n_characters, n_bytes
        for text, ends_document in read_documents(path, corpus, encoding, progress):
            data = text.encode("utf-8")
            text_hash.update(data)
            n_documents += ends_document
            n_characters += len(text)
            n_bytes += len(data)
            yield text

    def mark(batch: Sequence[str]) -> None:
        for text in batch:
            if text.isascii():  # six times as fast
                known = np.flatnonzero(occurs[:128]).astype(np.uint8).tobytes()
                occurs[list(text.encode("ascii").translate(None, known))] = True
            else:
                occurs[code_points(text)] = True

    for _ in _in_order(pool, threads, mark, _batches(counted(), len)):
        pass
    return {
        "encoding": encoding,
        "n_documents": n_documents,
        "n_characters": n_characters,
        "n_bytes": n_bytes,
        "hash": text_hash.hexdigest() if n_documents == 1 else None,
    }


def merge(
    counts: Sequence[dict[str, Any]],
    corpus: Corpus,
    dataset: Dataset,
    tokenizer_file: str | Path | None = None,
    threads: int = 1,
) -> tuple[dict[str, Any], Tokenizer]:
    """The plan of a dataset, as JSON has it, and its tokenizer.

    counts: of all groups of files, in order. tokenizer_file: of another dataset, or GPT-2's merges.
    """
    lengths = [group["n_characters"] for group in counts]
    n_documents = sum(group["n_documents"] for group in counts)
    split = dataset.split
    if split == "auto":
        split = "document" if n_documents >= MANY_DOCUMENTS else "position"
    plan = {
        "split": split,
        "n_documents": n_documents,
        # Where nanoGPT cuts a text: this many characters are for training.
        "n_train": int(sum(lengths) * (1 - dataset.val_ratio)),
        # Of each group, how many characters stand before it.
        "starts": [sum(lengths[:group]) for group in range(len(counts))],
    }
    if tokenizer_file:
        return plan, load_tokenizer(tokenizer_file)
    if dataset.tokenizer == "byte":
        return plan, ByteTokenizer()
    if dataset.tokenizer == "char":
        separator = dataset.separator if n_documents > 1 else ""
        return plan, char_tokenizer(separator.join(["", *(c["characters"] for c in counts)]))
    files = [Path(file["path"]) for group in counts for file in group["files"]]
    with _progress("train byte pairs", files) as progress:
        pieces = (
            piece
            for number, group in enumerate(counts)
            for piece in _pieces(group, plan, number, corpus, dataset, progress.update)
            if piece.split == "train"
        )
        train = (piece.text for piece in _recut(pieces, separated_at))
        tokenizer = train_byte_pairs(train, dataset.vocab_size, threads)
    if tokenizer.vocab_size < dataset.vocab_size:
        logger.warning(
            "the text has byte pairs for %d tokens only, not for vocab_size %d",
            tokenizer.vocab_size,
            dataset.vocab_size,
        )
    return plan, tokenizer


def encode(
    counts: dict[str, Any],
    plan: dict[str, Any],
    group: int,
    tokenizer: Tokenizer,
    corpus: Corpus,
    dataset: Dataset,
    directory: Path,
    threads: int = 1,
) -> dict[str, Any]:
    """Write train.bin and val.bin of a group of files; returns counts and sha256 of both for JSON.

    counts: of this group, whose number in the plan is `group`.

    Errors: UserError for what a given tokenizer lacks, and a text that cannot be cut.
    """
    several = plan["n_documents"] > 1

    def encode_piece(piece: Piece) -> tuple[Piece, Tokens, int]:
        try:
            tokens = tokenizer.encode(piece.text)
            if piece.ends_document and several:
                end = tokenizer.end_of_document(dataset.separator)
                tokens = cast(Tokens, np.concatenate([tokens, end]))
        except UserError as error:
            raise UserError(
                f"{piece.path}: with the tokenizer `{dataset.tokenizer}` and the separator "
                f"{dataset.separator!r}: {error}, or choose another tokenizer or separator"
            ) from None
        return piece, tokens, len(piece.text.encode("utf-8"))

    def encode_batch(batch: Sequence[Piece]) -> list[tuple[Piece, Tokens, int]]:
        return list(map(encode_piece, batch))

    totals: dict[str, dict[str, Any]] = {split: dict.fromkeys(COUNTED, 0) for split in SPLITS}
    digests = {split: hashlib.sha256() for split in SPLITS}
    paths = [Path(file["path"]) for file in counts["files"]]
    with (
        atomic_write(directory / "train.bin") as train,
        atomic_write(directory / "val.bin") as val,
        ThreadPoolExecutor(threads) as pool,
        ThreadPoolExecutor(1) as hasher,
        _progress("encode", paths) as progress,
    ):
        hashing = hasher.submit(digests["train"].update, b"")
        files = {"train": train, "val": val}
        pieces = _pieces(counts, plan, group, corpus, dataset, progress.update)
        batches = _batches(_recut(pieces, tokenizer.cut), lambda piece: len(piece.text))
        for batch in _in_order(pool, threads, encode_batch, batches):
            for piece, tokens, n_bytes in batch:
                data = tokens.astype(tokens.dtype.newbyteorder("<"), copy=False).data
                files[piece.split].write(data)
                hashing.result()  # no more than one piece waits for it
                hashing = hasher.submit(digests[piece.split].update, data)
                total = totals[piece.split]
                total["n_tokens"] += len(tokens)
                total["n_characters"] += len(piece.text)
                total["n_bytes"] += n_bytes
                total["n_documents"] += piece.ends_document
        # What is wrong is told before the files take their names.
        if sum(total["n_characters"] for total in totals.values()) != counts["n_characters"]:
            raise UserError(f"{paths[0]}, or a file after it, changed while it was read; try again")
        if len(plan["starts"]) == 1:
            _add_up([totals], dataset, paths[0])
    for split, digest in digests.items():
        totals[split]["sha256"] = digest.hexdigest()
    return totals


def _add_up(
    groups: Sequence[dict[str, Any]], dataset: Dataset, first: Path
) -> dict[str, dict[str, Any]]:
    """The counts of both splits over all groups; UserError if one is too short to be a split."""
    totals = {
        split: {name: sum(group[split][name] for group in groups) for name in COUNTED}
        for split in SPLITS
    }
    for split, total in totals.items():
        if total["n_tokens"] < 2:
            n_characters = sum(total["n_characters"] for total in totals.values())
            raise UserError(
                f"{first}: {plural(n_characters, 'character')} in all, too few to split by "
                f"val_ratio {dataset.val_ratio:g}: the {split} split would have "
                f"{plural(total['n_tokens'], 'token')}; add text, or change val_ratio or "
                "`split:` of the dataset"
            )
    return totals


def prepare(
    files: Sequence[Path],
    corpus: Corpus,
    dataset: Dataset,
    directory: Path,
    *,
    tokenizer_file: str | Path | None = None,
    plan_file: str | Path | None = None,
    threads: int = 1,
) -> str:
    """Write train.bin, val.bin, tokenizer.json and meta.json of a corpus to `directory`.

    tokenizer_file: of another dataset, or GPT-2's merges. plan_file: plan.json as jobs left it,
    beside tokenizer.json and the directories of all groups; without it, all is made here, as one
    group.

    Returns what there is to say of it in one line.

    Errors: those of the four steps, and UserError for a split of less than two tokens.
    """
    if plan_file:
        plan = read_json(plan_file)
        jobs = Path(plan_file).parent
        tokenizer = load_tokenizer(jobs / "tokenizer.json")
        groups = [jobs / str(group) for group in range(len(plan["starts"]))]
        counts = [read_json(group / "counts.json") for group in groups]
        totals = _add_up([read_json(group / "totals.json") for group in groups], dataset, files[0])
        digests = gather(groups, directory)
    else:
        counts = [count(files, corpus, threads)]
        plan, tokenizer = merge(counts, corpus, dataset, tokenizer_file, threads)
        totals = encode(counts[0], plan, 0, tokenizer, corpus, dataset, directory, threads)
        digests = {split: totals[split]["sha256"] for split in SPLITS}
    tokenizer.save(directory / "tokenizer.json")
    meta: dict[str, Any] = {
        "tokenizer": dataset.tokenizer,
        "vocab_size": tokenizer.vocab_size,
        "dtype": np.dtype(token_dtype(tokenizer.vocab_size)).name,
        "split": plan["split"],
        "tokenizer_sha256": sha256_file(directory / "tokenizer.json"),
    }
    for split in SPLITS:
        meta[split] = {**totals[split], "sha256": digests[split]}
    if corpus.builtin:
        # Over what evaluation predicts: all of the split but its first token. A play is ASCII.
        encoding = counts[0]["files"][0]["encoding"]
        text = "".join(text for text, _ in read_documents(files[0], corpus, encoding))
        first = len(tokenizer.decode(tokenizer.encode(text[plan["n_train"] :])[:1]))
        bits = playwright.surprisal(text)[plan["n_train"] + first :].sum()
        meta["source"] = {"val_bits_per_byte": float(bits) / (meta["val"]["n_bytes"] - first)}
    meta["files"] = [file for group in counts for file in group["files"]]
    write_json(directory / "meta.json", meta)
    n_train, n_val = (f"{meta[split]['n_tokens']:,}" for split in SPLITS)
    return f"{n_train} tokens to train on, {n_val} to validate"


def gather(groups: Sequence[Path], directory: Path) -> dict[str, str]:
    """Write train.bin and val.bin of a dataset: those of its groups, one after the other.

    Returns the sha256 of both.
    """
    digests = {split: hashlib.sha256() for split in SPLITS}
    for split, digest in digests.items():
        with atomic_write(directory / f"{split}.bin") as whole:
            for group in groups:
                with open(group / f"{split}.bin", "rb") as part:
                    while block := part.read(BATCH):
                        whole.write(block)
                        digest.update(block)
    return {split: digest.hexdigest() for split, digest in digests.items()}


def _pieces(
    counts: dict[str, Any],
    plan: dict[str, Any],
    group: int,
    corpus: Corpus,
    dataset: Dataset,
    progress: OnBytesRead,
) -> Iterator[Piece]:
    """The documents of a group in pieces, each in its split."""
    position = plan["starts"][group]
    for file in counts["files"]:
        path = file["path"]
        for text, ends_document in read_documents(Path(path), corpus, file["encoding"], progress):
            if plan["split"] == "document":
                # A file of several documents gives each as one piece.
                text_hash = file["hash"] or _hash(text)
                yield Piece(_split_by(text_hash, dataset.val_ratio), text, ends_document, path)
                continue
            n_train = min(max(0, plan["n_train"] - position), len(text))
            position += len(text)
            if n_train == len(text) and position <= plan["n_train"]:
                yield Piece("train", text, ends_document, path)
                continue
            if n_train:
                yield Piece("train", text[:n_train], False, path)
            yield Piece("val", text[n_train:], ends_document, path)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _split_by(text_hash: str, val_ratio: float) -> str:
    """The split of a document: by its text alone, so that other documents do not move it."""
    return "val" if int(text_hash, 16) < val_ratio * 2**256 else "train"


def _recut(pieces: Iterable[Piece], cut: Callable[[str], int]) -> Iterator[Piece]:
    """The same text in pieces that can be encoded one by one: cut where `cut` says."""
    rest = Piece("", "", True, "")  # what may still be joined to the next piece
    for piece in pieces:
        if piece.split != rest.split and rest.text:
            yield rest
            rest = rest._replace(text="")
        text = rest.text + piece.text
        end = len(text) if piece.ends_document else cut(text)
        if end or piece.ends_document:
            yield piece._replace(text=text[:end])
        rest = piece._replace(text=text[end:], ends_document=False)
        if len(rest.text) > LONGEST_UNCUT:
            raise UserError(
                f"{piece.path}: {len(rest.text):,} characters without a blank, where byte pairs "
                f"could be cut, from {rest.text[:20]!r} on; add line breaks, or take "
                "`tokenizer: char` or `byte`"
            )
    if rest.text:
        yield rest


def _batches(items: Iterable[Item], length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items by the quarter million characters: a thread's task is not a small document."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += length(item)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _in_order(
    pool: ThreadPoolExecutor,
    threads: int,
    function: Callable[[Item], Result],
    items: Iterable[Item],
) -> Iterator[Result]:
    """`map` by a pool that holds only a few items at a time."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > 2 * threads:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _progress(task: str, files: Sequence[Path]) -> Any:
    """A bar over the bytes of some files, as they lie on the disk, where there is a terminal."""
    size = sum(path.stat().st_size for path in files if path.is_file())
    return tqdm(desc=task, total=size, unit="B", unit_scale=True, disable=None)
