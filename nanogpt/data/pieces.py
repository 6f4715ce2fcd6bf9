"""Pieces of a dataset's documents, each assigned to a split and cut where tokens can end."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nanogpt.artifacts.records.groups import GroupCounts, Plan
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.cleaning import Kept, keep
from nanogpt.data.encodings import OnBytesRead
from nanogpt.data.formats import read_documents
from nanogpt.errors import UserError

# The most characters in a row without a place to cut byte pairs; they're encoded as one piece.
LONGEST_UNCUT = 1 << 22


class Piece(NamedTuple):
    """A part of a document and its split. path: its file, for error messages."""

    split: str
    text: str
    ends_document: bool
    path: str


@dataclass(frozen=True)
class Group:
    """A group of a corpus's files, with the plan of their dataset.

    counts: from the first pass over these files. number: the group's index in the plan. kept: which
    documents of all groups stay, if the plan has `cleaning`.
    """

    counts: GroupCounts
    plan: Plan
    number: int
    corpus: Corpus
    dataset: Dataset
    kept: Kept | None = None

    @property
    def n_characters(self) -> int:
        """The characters of the documents that stay."""
        cleaning = self.plan.cleaning
        return cleaning.n_characters[self.number] if cleaning else self.counts.n_characters

    @property
    def paths(self) -> list[Path]:
        """The group's files, in order."""
        return [Path(file.path) for file in self.counts.files]


def read_pieces(group: Group, progress: OnBytesRead) -> Iterator[Piece]:
    """Yield the documents of a group in pieces with their splits; skip text in neither split."""
    plan = group.plan
    position = plan.starts[group.number]
    is_last_group = group.number == len(plan.starts) - 1
    files = [file for file in group.counts.files if file.n_documents]
    first = plan.cleaning.first_documents[group.number] if plan.cleaning else 0
    for file in files:
        is_last = is_last_group and file is files[-1]
        documents = read_documents(Path(file.path), group.corpus, file.encoding, progress)
        if plan.cleaning and group.kept is not None:
            documents = keep(documents, group.kept[first : first + file.n_documents], file.path)
            first += file.n_documents
        for text, ends_document in documents:
            if plan.split == "document":
                # In a file of several documents, each document is one piece.
                split = _split_of(file.hash or _hash(text), group.dataset.val_ratio)
                yield Piece(split, text, ends_document, file.path)
            elif plan.split == "last_file":
                yield Piece("val" if is_last else "train", text, ends_document, file.path)
            else:
                piece = Piece("train", text, ends_document, file.path)
                yield from _cut_at(piece, position, plan)
                position += _length(text, plan)


def _cut_at(piece: Piece, position: int, plan: Plan) -> Iterator[Piece]:
    """Cut a piece at the ends of the training and validation splits.

    position: of the piece's start, in the plan's unit.
    """
    text, end = piece.text, position + _length(piece.text, plan)
    if end <= plan.n_train:
        yield piece
        return
    n_train = _n_characters(text, plan.n_train - position, plan)
    if n_train:
        yield piece._replace(text=text[:n_train], ends_document=False)
    if plan.n_end is None or end <= plan.n_end:
        yield piece._replace(split="val", text=text[n_train:])
        return
    n_val = _n_characters(text, plan.n_end - position, plan)
    if n_val > n_train:
        yield piece._replace(split="val", text=text[n_train:n_val], ends_document=False)


def _length(text: str, plan: Plan) -> int:
    """The length in characters, or in bytes of UTF-8 for a split by bytes."""
    return len(text.encode("utf-8")) if plan.split == "bytes" else len(text)


def _n_characters(text: str, length: int, plan: Plan) -> int:
    """How many whole characters of a text fit into a length in the plan's unit."""
    length = max(0, length)
    if plan.split != "bytes":
        return min(length, len(text))
    return len(text.encode("utf-8")[:length].decode("utf-8", "ignore"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _split_of(text_hash: str, val_ratio: float) -> str:
    """The split of a document, which depends on its text alone and not on other documents."""
    return "val" if int(text_hash, 16) < val_ratio * 2**256 else "train"


def recut(pieces: Iterable[Piece], cut: Callable[[str], int]) -> Iterator[Piece]:
    """Cut the same text at positions from `cut`, into pieces that can be encoded independently.

    Errors: UserError for more than LONGEST_UNCUT characters without a place to cut.
    """
    rest = Piece("", "", True, "")  # text that tokens may join to the next piece
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
                f"{piece.path}: too long for byte pairs without a space: {len(rest.text):,} "
                f"characters from {rest.text[:20]!r} on; add line breaks, or use "
                "`tokenizer: char` or `tokenizer: byte`"
            )
    if rest.text:
        yield rest
