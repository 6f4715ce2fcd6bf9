"""Settings of corpora and datasets: where a text comes from, and how it becomes tokens."""

import re
from encodings.aliases import aliases
from pathlib import PurePath
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from nanogpt.config.messages import did_you_mean
from nanogpt.config.parameters import new_setting
from nanogpt.config.patterns import NAME, SHA256
from nanogpt.config.values import OneOrMore, Seed, Settings

# `playwright` is what the first version called the generator.
BUILTIN = BeforeValidator(
    lambda value: "play" if value == "playwright" else value,
    json_schema_input_type=Literal["play", "playwright"] | None,
)

# curl's notation for numbered URLs: part-[00-79].parquet
URL_RANGE = re.compile(r"\[(\d+)-(\d+)\]")


class Corpus(Settings):
    """Raw text: exactly one of `url`, `files` or `builtin`."""

    url: Annotated[list[str], OneOrMore] = Field(
        [], description="where to download it: one, a list, or a numbered range such as `[00-79]`"
    )
    sha256: Annotated[list[Annotated[str, Field(pattern=SHA256)]], OneOrMore] = Field(
        [],
        description="digests of the files, as many as there are and in their order; none: those of "
        "the first download are recorded",
    )
    files: Annotated[list[Annotated[str, Field(min_length=1)]], OneOrMore] = Field(
        [], description="local files, directories or patterns such as `texts/**/*.txt`, one or more"
    )
    builtin: Annotated[Literal["play"] | None, BUILTIN] = Field(
        None, description="a built-in generator: play"
    )
    n_characters: int = Field(
        1_000_000, ge=1, le=10**12, description="length of a built-in corpus, characters"
    )
    seed: Seed = Field(1337, description="seed of a built-in corpus")
    format: Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"] = new_setting(
        "auto",
        neutral="auto",
        description="how its files are read; auto: by their names and first bytes; text: unpacked, "
        "as plain text, whatever that looks like",
    )
    member: str = new_setting(
        "",
        neutral="",
        description="the file of an archive (.zip, .tar) that is read; empty: its only text",
    )
    encoding: str = Field(
        "auto", description="a name that Python knows, or auto: UTF-8, else the likeliest"
    )
    errors: Literal["strict", "replace"] = Field(
        "strict", description="what bytes that do not fit the encoding get: an error, or U+FFFD"
    )
    newlines: Literal["keep", "lf"] = Field(
        "keep", description="lf: CRLF and CR become a line feed; keep: they stay"
    )
    rows: Literal["documents", "joined"] = new_setting(
        "documents",
        neutral="documents",
        description="what the rows of a table are; joined: parts of one document, as they are, "
        "such as lines with their line ends",
    )
    text_column: str = Field(
        "text",
        min_length=1,
        description="what holds the text: a field of .jsonl, a column of .parquet, .csv and .tsv; "
        "`a.b` is b within a",
    )
    missing: Literal["error", "skip"] = new_setting(
        "error", neutral="error", description="what a row of .jsonl without text_column gets"
    )
    delimiter: str = new_setting(
        "auto",
        neutral="auto",
        min_length=1,
        description="what separates the columns of .csv; auto: a comma, semicolon, tab or bar, the "
        "first of them by which the header has text_column",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Corpus":
        if sum(map(bool, (self.url, self.files, self.builtin))) != 1:
            raise ValueError("a corpus has exactly one of url, files and builtin")
        n_files = len(self.urls) + len(self.files)
        if self.sha256 and len(self.sha256) != n_files:
            raise ValueError(
                f"{len(self.sha256)} sha256 for {n_files} files; give each file's, or leave it out"
            )
        if len({_last_part(url) for url in self.urls}) < len(self.urls):
            raise ValueError("two of its URLs end in the same name of a file; one would be lost")
        return self

    @field_validator("url")
    @classmethod
    def _is_of_a_file(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not re.fullmatch(r"https?://[^/?#\s]+/\S+", url):
                raise ValueError(f"`{url}` is no URL of a file; http(s)://host/path is wanted")
            if any(int(low) > int(high) for low, high in URL_RANGE.findall(url)):
                raise ValueError(f"`{url}`: a range begins with its lowest number")
            if not all(NAME.fullmatch(_last_part(one)) for one in expand_url(url)):
                raise ValueError(f"`{url}` doesn't end in the name of a file, as it should")
        return urls

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str) -> str:
        if delimiter != "auto" and (len(delimiter) > 1 or delimiter in '"\r\n'):
            raise ValueError("one character is wanted, but no quote or line end, or auto")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            if encoding != "auto":
                "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError(
                f"`{encoding}` is no encoding that Python knows"
                f"{did_you_mean(encoding.lower(), sorted(set(aliases.values())), none='')}"
            ) from None
        return encoding

    @property
    def urls(self) -> list[str]:
        """All its URLs, ranges written out."""
        return [one for url in self.url for one in expand_url(url)]

    def digest_of(self, file: str) -> str | None:
        """The sha256 that a file must have, if config.yaml says one.

        file: the name of a download, or the path of a local file as `files` has it.
        """
        names = list(self.downloads) or [PurePath(entry).as_posix() for entry in self.files]
        return dict(zip(names, self.sha256, strict=False)).get(file)

    @property
    def downloads(self) -> dict[str, str]:
        """Its URLs by the names that the files get in resources/corpora/<corpus>/."""
        return {_last_part(url): url for url in self.urls}


def expand_url(url: str) -> list[str]:
    """A URL with numbered ranges, curl's `[00-79]`, written out; leading zeros stay."""
    found = URL_RANGE.search(url)
    if not found:
        return [url]
    low, high = found.groups()
    numbers = [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
    rest = expand_url(url[found.end() :])
    return [url[: found.start()] + number + tail for number in numbers for tail in rest]


def _last_part(url: str) -> str:
    """The name of a URL's file here: its last part, `_` for what can't be in a name."""
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", last).lstrip("._-")


TOKENIZERS = ("char", "bpe", "gpt2", "byte")


class Dataset(Settings):
    """A corpus, a tokenizer and a split."""

    corpus: str | None = Field(None, description="name of a corpus; none: the dataset's own name")
    tokenizer: str = Field(
        "char",
        description="char: one token a character; bpe: byte pairs, trained on the training split; "
        "gpt2: GPT-2's; byte: 256 symbols; or the name of a dataset, whose tokenizer is taken",
    )
    vocab_size: int = Field(
        1024, ge=257, description="tokens of `bpe`: 256 bytes, joined pairs, and the end of a text"
    )
    val_ratio: float = Field(0.1, gt=0, lt=1, description="share held out for validation")
    train_bytes: int | None = new_setting(
        None,
        neutral=None,
        ge=1,
        description="bytes of UTF-8 at the text's beginning to train on, in place of val_ratio",
    )
    val_bytes: int | None = new_setting(
        None,
        neutral=None,
        ge=1,
        description="bytes after train_bytes that are held out for validation, while those after "
        "them, a test split, are in neither; none: all of the rest",
    )
    split: Literal["auto", "position", "document", "last_file"] = Field(
        "auto",
        description="position: the end of the text is held out; document: documents are, chosen "
        "by a hash of each; last_file: the last file is; auto: document from 100 documents on",
    )
    separator: str = Field(
        "\n",
        description="what stands after each of several documents, for `char` and `byte`; "
        "byte pairs have a token for it",
    )

    @model_validator(mode="after")
    def _one_split(self) -> "Dataset":
        if self.val_bytes and not self.train_bytes:
            raise ValueError("val_bytes are those after train_bytes; give that, too")
        if self.train_bytes and self.split not in ("auto", "position"):
            raise ValueError("train_bytes cuts by position; leave out `split`, or train_bytes")
        return self
