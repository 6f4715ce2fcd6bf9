"""Parameters by part, and sizes of datasets with and without their files."""

from pathlib import Path

import pytest

from nanogpt.config.loading import load
from nanogpt.config.schema import Config, ModelSettings
from nanogpt.model.gpt import GPT
from nanogpt.planning.sizes import count_parameters, dataset_size
from nanogpt.project import Project
from tests.made_runs import VOCAB_SIZE, write_meta

CONFIG = {
    "corpora": {
        "play": {"builtin": "play", "n_characters": 1000},
        "far": {"url": "http://corpora.example/far.txt"},
        "near": {"files": "near.txt"},
    },
    "datasets": {
        "play": {},
        "far": {},
        "near": {"tokenizer": "byte"},
        "pairs": {"corpus": "far", "tokenizer": "bpe", "vocab_size": 512},
        "pairs2": {"corpus": "far", "tokenizer": "gpt2"},
        "other": {"corpus": "far", "tokenizer": "pairs"},
    },
}


@pytest.fixture
def config() -> Config:
    return load(CONFIG)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"position": "rotary", "norm": "rmsnorm", "tie_word_embeddings": False},
        {"bias": True},
    ],
)
def test_parts_add_up_to_the_model(tiny: ModelSettings, settings: dict) -> None:
    model_settings = tiny.model_copy(update=settings)
    model = GPT(model_settings, 65)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    parts = count_parameters(model_settings, 65)
    assert parts.total == sum(sizes.values())
    assert parts.embeddings == sum(n for name, n in sizes.items() if name.startswith("w"))
    assert parts.blocks == sum(n for name, n in sizes.items() if name.startswith("h."))


def test_existing_dataset_is_read(config: Config, tmp_path: Path) -> None:
    write_meta(tmp_path, "play")
    size = dataset_size(config, "play", Project(tmp_path))
    assert (size.vocab_size, size.vocabulary) == (VOCAB_SIZE, "")
    assert (size.n_train, size.n_bytes) == (999, 2 * 2 * 999)


def test_missing_dataset_is_estimated_from_its_settings(config: Config, tmp_path: Path) -> None:
    (tmp_path / "near.txt").write_text("x" * 500)
    sizes = {name: dataset_size(config, name, Project(tmp_path)) for name in config.datasets}
    vocabularies = {name: size.vocab_size for name, size in sizes.items()}
    assert vocabularies == {
        "play": 100,
        "far": 100,
        "near": 256,
        "pairs": 512,
        "pairs2": 50_257,
        "other": 512,
    }
    assert [name for name, size in sizes.items() if size.vocabulary] == ["play", "far"]
    tokens = {name: size.n_train for name, size in sizes.items() if size.n_train}
    assert tokens == {"play": 900, "near": 450}
    assert sizes["near"].n_bytes == 1000
