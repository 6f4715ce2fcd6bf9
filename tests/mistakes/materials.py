"""A dataset, a training and a model for the mistakes to start from."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from nanogpt.artifacts.states import TrainingState
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.data.preparing import prepare
from nanogpt.data.sources import find_files
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.training.loop import train
from tests.data.prepared import prepare_by_groups
from tests.mistakes.base import TEXT, write_files

BOOK = Path("results/datasets/book")


MODEL = Path("results/demo/model")


TINY = ModelSettings(n_layer=1, n_head=1, n_embd=4, block_size=8, dropout=0)


def prepare_book(
    contents: Mapping[str, bytes | str], corpus: Mapping[str, object], **dataset: object
) -> None:
    """Prepare a dataset `book` from files; the first is the corpus unless `corpus` names one."""
    write_files(contents)
    settings = Corpus.model_validate({"files": list(contents)[:1], **corpus})
    prepare(find_files("book", settings), settings, Dataset.model_validate(dataset), BOOK)


def make_dataset() -> None:
    """Prepare the dataset `book` from one short text."""
    prepare_book({"book.txt": TEXT}, {})


def make_shards() -> None:
    """Prepare the dataset `book` from two texts, with a shard for each."""
    write_files({f"book/{number}.txt": TEXT for number in range(2)})
    groups = [[Path(f"book/{number}.txt")] for number in range(2)]
    BOOK.parent.mkdir(parents=True)
    prepare_by_groups(groups, Path("prepared"), sharded=True).rename(BOOK)


def edit_json(path: Path, **changes: object) -> None:
    """Replace some keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def train_first(model: ModelSettings = TINY, **changes: object) -> None:
    """Train a run `first` on the dataset `book`, for a step or two."""
    settings = TrainSettings.model_validate(
        {
            **{"max_iters": 2, "batch_size": 2, "eval_interval": 1, "eval_iters": 1},
            **{"log_interval": 1, "decay_lr": False, "device": "cpu", "dtype": "float32"},
            **changes,
        }
    )
    train("first", BOOK, model, settings, TrainingState(Path("state"), "v"), Path("results/first"))


def make_model(letters: str = "abc \n") -> None:
    """Save an untrained model whose vocabulary is these letters."""
    tokenizer = char_tokenizer(letters)
    torch.manual_seed(0)
    save_model(MODEL, GPT(TINY, tokenizer.vocab_size).state_dict(), TINY, tokenizer)
