"""Prepare a dataset: turn the files of a corpus into token files, streaming in constant memory.

1. `count` reads a group of files and counts their documents, characters and bytes.
2. `plan_dataset` decides from all counts how to split the text, and builds the tokenizer.
3. `encode` reads a group again and writes its tokens.
4. `prepare` joins the groups and writes meta.json.

For a corpus of many files, the workflow runs these steps as separate jobs. For one file, `prepare`
does all four. The result has the same bytes for any grouping and any number of threads.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.datasets import DatasetMeta, FileMeta, SourceMeta
from nanogpt.artifacts.records.groups import (
    GroupCounts,
    GroupTotals,
    Plan,
    SplitTotals,
)
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.values import warn_of_escapes
from nanogpt.data.byte_pairs import separated_at, train_byte_pairs
from nanogpt.data.cleaning import (
    Choice,
    Cleaner,
    TableFile,
    choose_documents,
    row_type,
    summarize,
)
from nanogpt.data.encodings import OnBytesRead, decide_encoding
from nanogpt.data.formats import read_documents
from nanogpt.data.joining import add_up, put_together, remove_old_token_files
from nanogpt.data.pieces import Group, Piece, read_pieces, recut
from nanogpt.data.play import surprisal
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.sources import in_words, passed_over
from nanogpt.data.splitting import check_splits, plan_split
from nanogpt.data.streams import OrderedPool, in_batches, progress_bar
from nanogpt.data.tokenizers import (
    ByteTokenizer,
    Tokenizer,
    Tokens,
    char_tokenizer,
    code_points,
    token_dtype,
)
from nanogpt.errors import NoTextError, UserError, plural
from nanogpt.files.atomic import atomic_write, sha256_file
from nanogpt.project import group_name, token_file

logger = logging.getLogger(__name__)

EMPTY_SHOWN = 3  # files without text that are logged by name


def check_sha256(digests: Mapping[str, str], corpus: Corpus) -> None:
    """Raise UserError if a file's sha256 isn't the one in config.yaml. digests: by path."""
    for path, digest in digests.items():
        wanted = corpus.digest_of(Path(path).name if corpus.url else Path(path).as_posix())
        if wanted not in (None, digest):
            raise UserError(
                f"{path}: wrong sha256: expected {wanted}, found {digest}; correct `sha256:` in "
                "config.yaml, or delete a downloaded file to get a new copy"
            )


def count(
    files: Sequence[Path], corpus: Corpus, threads: int = 1, cleaner: Cleaner | None = None
) -> GroupCounts:
    """Read a group of files and count their documents, characters and bytes.

    cleaner: judges all documents, for a dataset that can leave out some.

    Errors: UserError for a file that can't be read, isn't text, or has the wrong sha256.
    """
    occurs = np.zeros(0x110000, dtype=np.bool_)
    counted = []
    with OrderedPool(threads) as pool, progress_bar("count", files) as progress:
        for path in files:
            digest = pool.submit(sha256_file, path)
            if corpus.sha256:  # only then wait for the digest before reading
                check_sha256({str(path): digest.result()}, corpus)
            counted.append(
                _count_file(path, digest, corpus, occurs, pool, progress.update, cleaner)
            )
    if cleaner:
        cleaner.write_rows()
    return GroupCounts(
        files=tuple(counted),
        n_documents=sum(file.n_documents for file in counted),
        n_characters=sum(file.n_characters for file in counted),
        characters="".join(map(chr, np.flatnonzero(occurs))),
    )


def _count_file(
    path: Path,
    digest: Future[str],
    corpus: Corpus,
    occurs: NDArray[np.bool_],
    pool: OrderedPool,
    progress: OnBytesRead,
    cleaner: Cleaner | None,
) -> FileMeta:
    encoding = decide_encoding(path, corpus)
    n_documents = n_characters = n_bytes = 0
    text_hash = hashlib.sha256()

    def pieces() -> Iterator[tuple[str, bool]]:
        nonlocal n_documents, n_characters, n_bytes
        for text, ends_document in read_documents(path, corpus, encoding, progress):
            data = text.encode("utf-8")
            text_hash.update(data)
            n_documents += ends_document
            n_characters += len(text)
            n_bytes += len(data)
            yield text, ends_document

    texts = cleaner.read(pieces()) if cleaner else (text for text, _ in pieces())
    with contextlib.suppress(NoTextError):  # `plan_dataset` reports it
        for _ in pool.in_order(partial(_mark, occurs), in_batches(texts, len)):
            pass
    return FileMeta(
        path=str(path),
        sha256=digest.result(),
        encoding=encoding,
        n_documents=n_documents,
        n_characters=n_characters,
        n_bytes=n_bytes,
        hash=text_hash.hexdigest() if n_documents == 1 else None,
    )


def _mark(occurs: NDArray[np.bool_], texts: Sequence[str]) -> None:
    """Mark the characters of some texts in a table of all code points."""
    for text in texts:
        if text.isascii():  # six times as fast as below
            known = np.flatnonzero(occurs[:128]).astype(np.uint8).tobytes()
            occurs[list(text.encode("ascii").translate(None, known))] = True
        else:
            occurs[code_points(text)] = True


def plan_dataset(
    counts: Sequence[GroupCounts],
    corpus: Corpus,
    dataset: Dataset,
    tokenizer_file: str | Path | None = None,
    threads: int = 1,
    choice: Choice | None = None,
) -> tuple[Plan, Tokenizer]:
    """Plan a dataset's split, and build or load its tokenizer.

    counts: of all groups, in order. tokenizer_file: another dataset's, or GPT-2's merges. choice:
    the documents that stay, if some can be left out.
    """
    _check_texts(counts)
    plan = plan_split(counts, dataset, choice)
    n_documents = plan.n_documents
    if tokenizer_file:
        return plan, load_tokenizer(tokenizer_file)
    if n_documents > 1 and dataset.tokenizer in ("char", "byte"):
        warn_of_escapes(dataset.separator, "separator")
    if dataset.tokenizer == "byte":
        return plan, ByteTokenizer()
    if dataset.tokenizer == "char":
        separator = dataset.separator if n_documents > 1 else ""
        return plan, char_tokenizer(separator.join(["", *(c.characters for c in counts)]))
    kept = choice.kept if choice else None
    groups = [Group(c, plan, number, corpus, dataset, kept) for number, c in enumerate(counts)]
    return plan, _train_byte_pairs(groups, dataset.vocab_size, threads)


def _check_texts(counts: Sequence[GroupCounts]) -> None:
    """Warn about files without text; raise NoTextError if no file has text."""
    files = [file for group in counts for file in group.files]
    empty = [file.path for file in files if not file.n_documents]
    if len(empty) == len(files):
        more = f", nor in the {plural(len(files) - 1, 'other file')}" if len(files) > 1 else ""
        raise NoTextError(files[0].path, more)
    for path in empty[:EMPTY_SHOWN]:
        logger.warning("%s: no text in it; skipped", path)
    if len(empty) > EMPTY_SHOWN:
        logger.warning("%d more files: no text in them; skipped", len(empty) - EMPTY_SHOWN)


def _train_byte_pairs(groups: Sequence[Group], vocab_size: int, threads: int) -> Tokenizer:
    """Train a tokenizer of the most frequent byte pairs of the training split."""
    files = [path for group in groups for path in group.paths]
    with progress_bar("train byte pairs", files) as progress:
        pieces = (
            piece
            for group in groups
            for piece in read_pieces(group, progress.update)
            if piece.split == "train"
        )
        train = (piece.text for piece in recut(pieces, separated_at))
        tokenizer = train_byte_pairs(train, vocab_size, threads)
    if tokenizer.vocab_size < vocab_size:
        logger.warning(
            "the text has byte pairs for only %d tokens, fewer than vocab_size %d",
            tokenizer.vocab_size,
            vocab_size,
        )
    return tokenizer


class EncodedPiece(NamedTuple):
    """A piece and its tokens. n_bytes: length of its text in UTF-8."""

    piece: Piece
    tokens: Tokens
    n_bytes: int


class _SplitWriter:
    """Writes a token file, and keeps its totals and sha256."""

    def __init__(self, file: BinaryIO, hasher: ThreadPoolExecutor) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._hasher = hasher
        self._hashing = hasher.submit(self._digest.update, b"")
        self._n_tokens = self._n_characters = self._n_bytes = self._n_documents = 0

    def write(self, encoded: EncodedPiece) -> None:
        """Append the tokens of a piece."""
        tokens = encoded.tokens
        data = tokens.astype(tokens.dtype.newbyteorder("<"), copy=False).data
        self._file.write(data)
        self._hashing.result()  # keeps at most one piece waiting to be hashed
        self._hashing = self._hasher.submit(self._digest.update, data)
        self._n_tokens += len(tokens)
        self._n_characters += len(encoded.piece.text)
        self._n_bytes += encoded.n_bytes
        self._n_documents += encoded.piece.ends_document

    def totals(self) -> SplitTotals:
        """Totals of all pieces written so far."""
        self._hashing.result()
        return SplitTotals(
            n_tokens=self._n_tokens,
            n_characters=self._n_characters,
            n_bytes=self._n_bytes,
            n_documents=self._n_documents,
            sha256=self._digest.hexdigest(),
        )


def encode(
    group: Group,
    tokenizer: Tokenizer,
    directory: Path,
    threads: int = 1,
    shard: int | None = None,
) -> GroupTotals:
    """Write the token files of a group of files to `directory`. shard: their number, if any.

    Errors: UserError for characters that a given tokenizer lacks, for a text that can't be cut,
    and for a file that changed since it was counted.
    """

    def encode_batch(batch: Sequence[Piece]) -> list[EncodedPiece]:
        return [_encode_piece(piece, tokenizer, group) for piece in batch]

    paths = group.paths
    if shard is not None:  # it would list new shards as its own
        (directory / "meta.json").unlink(missing_ok=True)
    with (
        atomic_write(directory / token_file("train", shard)) as train,
        atomic_write(directory / token_file("val", shard)) as val,
        OrderedPool(threads) as pool,
        ThreadPoolExecutor(1) as hasher,
        progress_bar("encode", paths) as progress,
    ):
        writers = {"train": _SplitWriter(train, hasher), "val": _SplitWriter(val, hasher)}
        pieces = recut(read_pieces(group, progress.update), tokenizer.cut)
        batches = in_batches(pieces, lambda piece: len(piece.text))
        for batch in pool.in_order(encode_batch, batches):
            for encoded in batch:
                writers[encoded.piece.split].write(encoded)
        totals = GroupTotals(train=writers["train"].totals(), val=writers["val"].totals())
        # Checked inside the `with` block, so an error leaves no token files.
        n_characters = totals.train.n_characters + totals.val.n_characters
        if group.plan.n_end is None and n_characters != group.n_characters:
            raise UserError(
                f"{paths[0]}: this file or a later one of the corpus changed while the dataset "
                "was prepared; run the same command again"
            )
        if len(group.plan.starts) == 1:
            check_splits([totals], group.dataset, group.plan, paths[0])
    return totals


def _encode_piece(piece: Piece, tokenizer: Tokenizer, group: Group) -> EncodedPiece:
    dataset = group.dataset
    try:
        tokens = tokenizer.encode(piece.text)
        if piece.ends_document and group.plan.n_documents > 1:
            end = tokenizer.end_of_document(dataset.separator)
            tokens = cast(Tokens, np.concatenate([tokens, end]))
    except UserError as error:
        raise UserError(
            f"{piece.path}: can't be encoded with tokenizer `{dataset.tokenizer}` and separator "
            f"{dataset.separator!r}: {error}, or choose another tokenizer or separator"
        ) from None
    return EncodedPiece(piece, tokens, len(piece.text.encode("utf-8")))


def prepare(
    files: Sequence[Path],
    corpus: Corpus,
    dataset: Dataset,
    directory: Path,
    *,
    tokenizer_file: str | Path | None = None,
    plan_file: str | Path | None = None,
    threads: int = 1,
    sharded: bool = False,
) -> str:
    """Write train.bin, val.bin, tokenizer.json and meta.json of a corpus to `directory`.

    tokenizer_file: another dataset's, or GPT-2's merges. plan_file: plan.json from earlier jobs,
    in a directory with tokenizer.json and the directories of all groups; None: all steps run here,
    with a single group. sharded: the groups' token files are already there, as shards.

    Returns a one-line summary.

    Errors: those of the four steps, and UserError for a split of fewer than two tokens.
    """
    if plan_file:
        jobs = Path(plan_file).parent
        plan = read_record(Path(plan_file), Plan)
        tokenizer = load_tokenizer(jobs / "tokenizer.json")
        groups = [jobs / group_name(number) for number in range(len(plan.starts))]
        counts = [read_record(group / "counts.json", GroupCounts) for group in groups]
        totals = [read_record(group / "totals.json", GroupTotals) for group in groups]
        check_splits(totals, dataset, plan, files[0])
        parts = [] if sharded else groups
        train = put_together("train", [group.train for group in totals], parts, directory)
        val = put_together("val", [group.val for group in totals], parts, directory)
    else:
        group, tokenizer = _plan_here(files, corpus, dataset, directory, tokenizer_file, threads)
        counts, plan = [group.counts], group.plan
        totals = [encode(group, tokenizer, directory, threads)]
        train, val = (add_up([split], split.sha256) for split in (totals[0].train, totals[0].val))
    tokenizer.save(directory / "tokenizer.json")
    several = plan.n_documents > 1
    separator = tokenizer.end_of_document(dataset.separator) if several else ()
    meta = DatasetMeta(
        tokenizer=dataset.tokenizer,
        vocab_size=tokenizer.vocab_size,
        dtype="uint16" if token_dtype(tokenizer.vocab_size) is np.uint16 else "uint32",
        split=plan.split,
        separator=tuple(map(int, separator)),
        tokenizer_sha256=sha256_file(directory / "tokenizer.json"),
        train=train,
        val=val,
        files=_without_directories(counts),
        passed_over=passed_over(corpus),
    )
    if corpus.builtin:
        source = SourceMeta(val_bits_per_byte=_entropy(files[0], corpus, plan, tokenizer, meta))
        meta = meta.model_copy(update={"source": source})
    if plan.cleaning:
        meta = meta.model_copy(update={"cleaning": plan.cleaning.totals})
    write_record(directory / "meta.json", meta)
    remove_old_token_files(directory, meta)
    return _summary(meta)


def _plan_here(
    files: Sequence[Path],
    corpus: Corpus,
    dataset: Dataset,
    directory: Path,
    tokenizer_file: str | Path | None,
    threads: int,
) -> tuple[Group, Tokenizer]:
    """Count and plan all files as one group."""
    counts, choice = _count_here(files, corpus, dataset, directory, threads)
    plan, tokenizer = plan_dataset([counts], corpus, dataset, tokenizer_file, threads, choice)
    return Group(counts, plan, 0, corpus, dataset, choice.kept if choice else None), tokenizer


def _count_here(
    files: Sequence[Path], corpus: Corpus, dataset: Dataset, directory: Path, threads: int
) -> tuple[GroupCounts, Choice | None]:
    """Count all files as one group, and choose the documents that stay."""
    if not dataset.cleans:
        return count(files, corpus, threads), None
    directory.mkdir(parents=True, exist_ok=True)
    # The file has no name, so nothing is left if this process is killed. It's next to the results
    # because /tmp is often in memory.
    with TemporaryFile(dir=directory) as file:
        counts = count(files, corpus, threads, Cleaner(dataset, file.write))
        table = TableFile(file, row_type(dataset), counts.n_documents)
        return counts, choose_documents([counts], [table], dataset)


def _without_directories(counts: Sequence[GroupCounts]) -> tuple[FileMeta, ...]:
    """All files, by name only, so meta.json doesn't depend on where the texts are."""
    files = [file for group in counts for file in group.files]
    return tuple(file.model_copy(update={"path": Path(file.path).name}) for file in files)


def _summary(meta: DatasetMeta) -> str:
    summary = f"{meta.train.n_tokens:,} tokens to train on, {meta.val.n_tokens:,} to validate"
    if meta.train.shards:
        summary += f", in {plural(len(meta.train.shards), 'shard')}"
    if meta.passed_over:
        n_read = plural(len(meta.files), "file")
        summary += f"; read {n_read}, skipped {in_words(meta.passed_over)}"
    if meta.cleaning:
        summary += f"; {summarize(meta.cleaning)}"
    return summary


def _entropy(
    file: Path, corpus: Corpus, plan: Plan, tokenizer: Tokenizer, meta: DatasetMeta
) -> float:
    """Entropy of a built-in corpus's source in bits per byte, over the tokens that eval predicts.

    Those are all tokens of the validation split except the first. A play is ASCII.
    """
    text = "".join(text for text, _ in read_documents(file, corpus, meta.files[0].encoding))
    first = len(tokenizer.decode(tokenizer.encode(text[plan.n_train : plan.n_end])[:1]))
    bits = surprisal(text)[plan.n_train + first : plan.n_end].sum()
    return float(bits) / (meta.val.n_bytes - first)
