"""meta.json: what a dataset is made of, and how much of it there is."""

from typing import Literal

from pydantic import PositiveInt

from nanogpt.artifacts.records.base import Record


class SplitMeta(Record):
    """A split of a dataset. n_characters and n_bytes are those of its text."""

    n_tokens: PositiveInt
    n_characters: int
    n_bytes: int
    n_documents: int
    sha256: str


class SourceMeta(Record):
    """The entropy of a built-in corpus's source over the validation split."""

    val_bits_per_byte: float


class FileMeta(Record):
    """A file of a corpus as the first pass found it. hash: of its text, if it is one document."""

    path: str
    sha256: str
    encoding: str
    n_documents: int
    n_characters: int
    n_bytes: int
    hash: str | None


class DatasetMeta(Record):
    """meta.json of a dataset. dtype: of the token files. source: of a built-in corpus only."""

    tokenizer: str
    vocab_size: PositiveInt
    dtype: Literal["uint16", "uint32"]
    split: Literal["position", "document"]
    tokenizer_sha256: str | None = None  # which no stage reads
    train: SplitMeta
    val: SplitMeta
    source: SourceMeta | None = None
    files: tuple[FileMeta, ...]
