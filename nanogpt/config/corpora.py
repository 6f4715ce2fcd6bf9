"""Settings of corpora (the source of a text) and of datasets (its tokenizer and split)."""

import re
from collections.abc import Iterable, Mapping
from encodings.aliases import aliases
from functools import cache, cached_property
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from nanogpt.config.messages import did_you_mean
from nanogpt.config.parameters import neutral_values, new_setting
from nanogpt.config.patterns import NAME, SHA256
from nanogpt.config.values import OneOrMore, Seed, Settings, expand_home
from nanogpt.files.buckets import BUCKET_NAME, SCHEME

# The first version called the generator `playwright`.
BUILTIN = BeforeValidator(
    lambda value: "play" if value == "playwright" else value,
    json_schema_input_type=Literal["play", "playwright"] | None,
)

# curl's notation for numbered URLs: part-[00-79].parquet
URL_RANGE = re.compile(r"\[(\d+)-(\d+)\]")
# Keys in S3 can have any characters, but not `.` or `..` as a part: links couldn't name them.
URL = rf"https?://[^/?#\s]+/\S+|s3://{BUCKET_NAME}/(?!(?:.*/)?\.{{1,2}}/).*\S"
URL_FORMS = "use http(s)://host/path or s3://bucket/path"


class Corpus(Settings):
    """Raw text: exactly one of `url`, `files` or `builtin`."""

    url: Annotated[list[str], OneOrMore] = Field(
        [],
        description="http(s) or s3 URL to download, or a list of URLs; `[00-79]` in a URL is a "
        "numbered range",
    )
    sha256: Annotated[list[Annotated[str, Field(pattern=SHA256)]], OneOrMore] = Field(
        [],
        description="sha256 digests of the files, in the same order; none: the digests of the "
        "first download are recorded",
    )
    files: Annotated[
        list[Annotated[str, Field(min_length=1), AfterValidator(expand_home)]], OneOrMore
    ] = Field(
        [],
        description="local file, directory or pattern such as `texts/**/*.txt`, or a list of them",
    )
    builtin: Annotated[Literal["play"] | None, BUILTIN] = Field(
        None, description="a built-in generator: play"
    )
    n_characters: int = Field(
        1_000_000, ge=1, le=10**12, description="length of a built-in corpus, in characters"
    )
    seed: Seed = Field(1337, description="seed of a built-in corpus")
    format: Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"] = new_setting(
        "auto",
        neutral="auto",
        description="file format; auto: detected from the name and first bytes; text: plain text, "
        "even if it looks like something else (compressed files are unpacked)",
    )
    member: str = new_setting(
        "",
        neutral="",
        description="file to read from an archive (.zip, .tar); empty: the only text in it",
    )
    encoding: str = Field(
        "auto", description="any encoding that Python knows; auto: UTF-8, else the most likely one"
    )
    errors: Literal["strict", "replace"] = Field(
        "strict",
        description="bytes that are invalid in the encoding; strict: an error; replace: U+FFFD",
    )
    newlines: Literal["keep", "lf"] = Field(
        "keep", description="line ends; keep: as they are; lf: CRLF and CR become a line feed"
    )
    rows: Literal["documents", "joined"] = new_setting(
        "documents",
        neutral="documents",
        description="rows of a table; documents: each is a document; joined: they are joined into "
        "one document as they are, for example lines with their line ends",
    )
    text_column: str = Field(
        "text",
        min_length=1,
        description="field (.jsonl) or column (.parquet, .csv, .tsv) with the text; `a.b`: field b "
        "inside a",
    )
    missing: Literal["error", "skip"] = new_setting(
        "error",
        neutral="error",
        description="what to do with rows of .jsonl without text_column",
    )
    delimiter: str = new_setting(
        "auto",
        neutral="auto",
        min_length=1,
        description="column separator of .csv; auto: comma, semicolon, tab or bar, whichever is "
        "first to give the header a column text_column",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Corpus":
        if sum(map(bool, (self.url, self.files, self.builtin))) != 1:
            raise ValueError("a corpus needs exactly one of `url`, `files` or `builtin`")
        n_files = len(self.urls) + len(self.files)
        if self.sha256 and len(self.sha256) != n_files:
            raise ValueError(
                f"{len(self.sha256)} sha256 for {n_files} files; give one per file, or none"
            )
        if len({_last_part(url) for url in self.urls}) < len(self.urls):
            raise ValueError("two URLs end in the same file name; move one to another corpus")
        return self

    @field_validator("url")
    @classmethod
    def _is_of_a_file(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not re.fullmatch(URL, url):
                raise ValueError(f"`{url}` isn't the URL of a file; {URL_FORMS}")
            if any(int(low) > int(high) for low, high in URL_RANGE.findall(url)):
                raise ValueError(f"`{url}`: the range is descending; put the lowest number first")
            if not all(NAME.fullmatch(_last_part(one)) for one in expand_url(url)):
                raise ValueError(f"`{url}` doesn't end in a file name; {URL_FORMS}")
        return urls

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str) -> str:
        if delimiter != "auto" and (len(delimiter) > 1 or delimiter in '"\r\n'):
            raise ValueError("should be auto or one character, but not a quote or a line end")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            if encoding != "auto":
                "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError(
                f"unknown encoding `{encoding}`"
                f"{did_you_mean(encoding.lower(), sorted(set(aliases.values())), none='')}"
            ) from None
        return encoding

    @property
    def urls(self) -> list[str]:
        """All URLs, with ranges expanded."""
        return _expand_all(self.url)

    def digest_of(self, file: str) -> str | None:
        """Return the sha256 that config.yaml gives for a file; None without one.

        file: the name of a download, or the path of a local file as in `files`.
        """
        return self.digests.get(file)

    @cached_property  # jobs of thousands of files ask
    def digests(self) -> Mapping[str, str]:
        """The sha256 that config.yaml gives, by file."""
        names = list(self.downloads) or [PurePath(entry).as_posix() for entry in self.files]
        return dict(zip(names, self.sha256, strict=False))

    @property
    def downloads(self) -> Mapping[str, str]:
        """The URLs by the file names that they get in resources/corpora/<corpus>/."""
        return _by_file_name(tuple(self.url))


def _expand_all(urls: Iterable[str]) -> list[str]:
    return [one for url in urls for one in expand_url(url)]


@cache  # jobs of thousands of downloads ask
def _by_file_name(urls: tuple[str, ...]) -> Mapping[str, str]:
    """Expand URLs; return them by the file names that they get."""
    return MappingProxyType({_last_part(url): url for url in _expand_all(urls)})


def expand_url(url: str) -> list[str]:
    """Expand numbered ranges such as `[00-79]` in a URL, keeping leading zeros."""
    found = URL_RANGE.search(url)
    if not found:
        return [url]
    low, high = found.groups()
    numbers = [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
    rest = expand_url(url[found.end() :])
    return [url[: found.start()] + number + tail for number in numbers for tail in rest]


def _last_part(url: str) -> str:
    """Return the local file name of a URL: its last part, with `_` for invalid characters."""
    path = url if url.startswith(SCHEME) else unquote(urlsplit(url).path)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.rpartition("/")[2])
    is_suffix = re.fullmatch(r"_[._-]*\.[A-Za-z0-9]+", name)  # such as of 日本.txt, not .notes
    return ("text." if is_suffix else "") + name.lstrip("._-")


TOKENIZERS = ("char", "bpe", "gpt2", "byte")

# Settings of a dataset that judge each document on its own.
FILTERS = ("min_characters", "max_characters", "min_alphabetic_words", "max_repeated_lines")


class Dataset(Settings):
    """A corpus, a tokenizer and a split, and which documents are left out."""

    corpus: str | None = Field(None, description="name of a corpus; none: the dataset's name")
    tokenizer: str = Field(
        "char",
        description="char: one token per character; bpe: byte pair encoding, trained on the "
        "training split; gpt2: GPT-2's; byte: one token per byte; or the name of a dataset, to "
        "use its tokenizer",
    )
    vocab_size: int = Field(
        1024,
        ge=257,
        description="vocabulary size of `bpe`, including 256 bytes and end of text",
    )
    val_ratio: float = Field(0.1, gt=0, lt=1, description="share held out for validation")
    train_bytes: int | None = new_setting(
        None,
        neutral=None,
        ge=1,
        description="train on this many bytes (UTF-8) from the start of the text, instead of using "
        "val_ratio",
    )
    val_bytes: int | None = new_setting(
        None,
        neutral=None,
        ge=1,
        description="with train_bytes: validate on this many bytes after those, and leave the rest "
        "out, as a test split; none: validate on all of the rest",
    )
    split: Literal["auto", "position", "document", "last_file"] = Field(
        "auto",
        description="text held out for validation; position: the end; document: some documents, "
        "chosen by their hash; last_file: the last file; auto: document for 100 documents or more, "
        "else position",
    )
    shards: Literal["auto", "always", "never"] = new_setting(
        "auto",
        neutral="auto",
        description="numbered token files instead of one per split, each written by one job, if "
        "the corpus has several files; auto: if they are local and have 16 GiB or more",
    )
    separator: str = Field(
        "\n",
        description="text added after each document, if there are several, for `char` and `byte`; "
        "`bpe` and `gpt2` have a token for it",
    )
    deduplicate: Literal["none", "exact", "near"] = new_setting(
        "none",
        neutral="none",
        description="leave out documents that occurred before; exact: those with the same text; "
        "near: also those with about 75% or more of their five-word sequences in common, by "
        "MinHash",
    )
    min_characters: int = new_setting(
        0, neutral=0, ge=0, description="leave out documents with fewer characters"
    )
    max_characters: int | None = new_setting(
        None, neutral=None, ge=1, description="leave out documents with more characters"
    )
    min_alphabetic_words: float = new_setting(
        0.0,
        neutral=0.0,
        ge=0,
        le=1,
        description="leave out documents in which less than this share of the words has a letter; "
        "Gopher's rule is 0.8",
    )
    max_repeated_lines: float = new_setting(
        1.0,
        neutral=1.0,
        ge=0,
        le=1,
        description="leave out documents in which more than this share of the characters is in "
        "lines that repeat an earlier line of the document; Gopher's rule is 0.2",
    )

    @property
    def filters(self) -> list[str]:
        """The filters that are used."""
        off = neutral_values(Dataset)
        return [name for name in FILTERS if getattr(self, name) != off[name]]

    @property
    def cleans(self) -> bool:
        """Whether documents can be left out."""
        return self.deduplicate != "none" or bool(self.filters)

    @model_validator(mode="after")
    def _lengths_in_order(self) -> "Dataset":
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"`max_characters` {self.max_characters} is less than `min_characters` "
                f"{self.min_characters}; no document has both, so correct one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_split(self) -> "Dataset":
        if self.val_bytes and not self.train_bytes:
            raise ValueError("`val_bytes` is only used with `train_bytes`; set that too")
        if self.train_bytes and self.split not in ("auto", "position"):
            raise ValueError("`train_bytes` splits by position; remove `split` or `train_bytes`")
        return self
