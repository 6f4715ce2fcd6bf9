"""meta.json: a dataset's sources, splits and sizes."""

from typing import Literal

from pydantic import Field

from nanogpt.artifacts.records.base import Count, PositiveCount, Record

# How a text is split; see `split` and `train_bytes` in SETTINGS.md.
Split = Literal["position", "document", "last_file", "bytes"]


class ShardMeta(Record):
    """A token file of a sharded dataset. It can be empty."""

    n_tokens: Count
    sha256: str


class SplitMeta(Record):
    """A split of a dataset. n_characters, n_bytes: lengths of its text.

    sha256: of its token file or, in a sharded dataset, of its shards' digests in order. shards:
    its token files; empty if there's one without a number.
    """

    n_tokens: PositiveCount
    n_characters: Count
    n_bytes: Count
    n_documents: Count
    sha256: str
    shards: tuple[ShardMeta, ...] = ()


class SourceMeta(Record):
    """The entropy of a built-in corpus's source over the validation split."""

    val_bits_per_byte: float = Field(gt=0)


class FileMeta(Record):
    """A file of a corpus, from the first pass. hash: of its text, if it's a single document.

    path: only the file name in meta.json.
    """

    path: str
    sha256: str
    encoding: str
    n_documents: Count
    n_characters: Count
    n_bytes: Count
    hash: str | None


class CleaningMeta(Record):
    """The documents that a dataset leaves out. removed: their number, by reason.

    n_documents_read, n_characters_read: of the corpus. The others are what's left.
    """

    n_documents_read: Count
    n_characters_read: Count
    removed: dict[str, Count]
    n_documents: Count
    n_characters: Count


class DatasetMeta(Record):
    """meta.json of a dataset. dtype: of the token files. source: for a built-in corpus only.

    cleaning: only for a dataset that can leave out documents.
    separator: the token ids after each of several documents; empty for a single document.
    passed_over: number of files in the corpus's directories that weren't read, by kind.
    """

    tokenizer: str
    vocab_size: PositiveCount
    dtype: Literal["uint16", "uint32"]
    split: Split
    separator: tuple[Count, ...] = ()
    tokenizer_sha256: str | None = None  # for users; no stage reads it
    train: SplitMeta
    val: SplitMeta
    source: SourceMeta | None = None
    files: tuple[FileMeta, ...]
    passed_over: dict[str, Count] = Field(default_factory=dict)
    cleaning: CleaningMeta | None = None
