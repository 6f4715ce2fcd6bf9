"""Sizes that follow from a run's settings: parameters, vocabulary, tokens and files."""

from dataclasses import dataclass
from pathlib import Path

import torch

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.datasets import DatasetMeta
from nanogpt.config.corpora import TOKENIZERS
from nanogpt.config.resolving import corpus_of
from nanogpt.config.schema import Config, ModelSettings
from nanogpt.data.sources import find_files
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import WithoutDraws
from nanogpt.planning.vocabulary import find_vocabulary
from nanogpt.project import Project


@dataclass(frozen=True)
class Parameters:
    """The number of parameters of a model, by part.

    output: the final norm, and the output layer unless it's tied to the embedding.
    """

    embeddings: int
    blocks: int
    output: int
    is_tied: bool

    @property
    def total(self) -> int:
        """The total number of parameters."""
        return self.embeddings + self.blocks + self.output


def count_parameters(settings: ModelSettings, vocab_size: int) -> Parameters:
    """Count the parameters of a model by part, without allocating memory."""
    with torch.device("meta"), WithoutDraws():
        model = GPT(settings, vocab_size)
    embeddings = model.wte.size()
    if settings.position == "learned":
        embeddings += model.wpe.size()
    blocks = sum(block.size(1).n_parameters for block in model.h)  # type: ignore[operator]
    return Parameters(
        embeddings.n_parameters,
        int(blocks),
        model.n_parameters() - embeddings.n_parameters - int(blocks),
        settings.tie_word_embeddings,
    )


@dataclass(frozen=True)
class DatasetSize:
    """The size of a dataset. n_train, n_bytes: None if they aren't known yet.

    vocabulary: a note if the vocabulary size is only assumed; else empty.
    """

    tokenizer: str
    vocab_size: int
    vocabulary: str
    n_train: int | None
    n_bytes: int | None


def dataset_size(config: Config, name: str, project: Project) -> DatasetSize:
    """Return a dataset's size from its meta.json, or from its settings if it isn't made yet.

    Errors: UserError for a damaged meta.json.
    """
    directory = project.datasets / name
    kind = config.datasets[name].tokenizer
    if (directory / "meta.json").exists():
        meta = read_record(directory / "meta.json", DatasetMeta)
        n_tokens, width = meta.train.n_tokens, 2 if meta.dtype == "uint16" else 4
        both = width * (n_tokens + meta.val.n_tokens)
        return DatasetSize(kind, meta.vocab_size, "", n_tokens, both)
    vocab_size, words = _find_vocabulary(config, name, project)
    n_train, n_bytes = _guess(config, name, project, vocab_size)
    return DatasetSize(kind, vocab_size, words, n_train, n_bytes)


def _find_vocabulary(config: Config, name: str, project: Project) -> tuple[int, str]:
    tokenizer = config.datasets[name].tokenizer
    if tokenizer not in TOKENIZERS:
        of_other = dataset_size(config, tokenizer, project)
        return of_other.vocab_size, of_other.vocabulary
    vocab_size, is_certain = find_vocabulary(config, name)
    return vocab_size, "" if is_certain else "assumed until the dataset is made"


def _guess(
    config: Config, name: str, project: Project, vocab_size: int
) -> tuple[int | None, int | None]:
    """Estimate training tokens and bytes, if a token is a character or a byte."""
    dataset, corpus = config.datasets[name], config.corpora[corpus_of(config, name)]
    if dataset.tokenizer not in ("char", "byte") or corpus.url:
        return None, None
    length = corpus.n_characters if corpus.builtin else _find_length(config, name, project)
    if length is None:
        return None, None
    width = 2 if vocab_size <= 2**16 else 4
    return round(length * (1 - dataset.val_ratio)), width * length


def _find_length(config: Config, name: str, project: Project) -> int | None:
    """Return the bytes (about the characters) of a corpus of files; None if they're missing."""
    corpus = corpus_of(config, name)
    try:
        files = find_files(corpus, config.corpora[corpus], project)
    except UserError:
        return None
    return sum(file.stat().st_size for file in files)


def directory_size(directory: Path) -> int:
    """Return the total size of the files in a directory; 0 if it doesn't exist."""
    return sum(file.stat().st_size for file in directory.glob("*") if file.is_file())
