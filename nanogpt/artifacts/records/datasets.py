"""meta.json: what a dataset is made of, and how much of it there is."""

from typing import Literal

from pydantic import Field

from nanogpt.artifacts.records.base import Count, PositiveCount, Record

# How a text is split, as SETTINGS.md says of `split` and of `train_bytes`.
Split = Literal["position", "document", "last_file", "bytes"]


class SplitMeta(Record):
    """A split of a dataset. n_characters and n_bytes are those of its text."""

    n_tokens: PositiveCount
    n_characters: Count
    n_bytes: Count
    n_documents: Count
    sha256: str


class SourceMeta(Record):
    """The entropy of a built-in corpus's source over the validation split."""

    val_bits_per_byte: float = Field(gt=0)


class FileMeta(Record):
    """A file of a corpus as the first pass found it. hash: of its text, if it is one document.

    path: in meta.json only the name.
    """

    path: str
    sha256: str
    encoding: str
    n_documents: Count
    n_characters: Count
    n_bytes: Count
    hash: str | None


class DatasetMeta(Record):
    """meta.json of a dataset. dtype: of the token files. source: of a built-in corpus only.

    separator: the ids of what stands after each of several documents; none after a single one.
    passed_over: how many files of the corpus's directories weren't read, by kind.
    """

    tokenizer: str
    vocab_size: PositiveCount
    dtype: Literal["uint16", "uint32"]
    split: Split
    separator: tuple[Count, ...] = ()
    tokenizer_sha256: str | None = None  # which no stage reads
    train: SplitMeta
    val: SplitMeta
    source: SourceMeta | None = None
    files: tuple[FileMeta, ...]
    passed_over: dict[str, Count] = Field(default_factory=dict)
