"""Small models with random weights, in both architectures and with every kind of tokenizer."""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nanogpt.config.schema import ModelSettings
from nanogpt.data.byte_pairs import (
    GPT2_MERGES_URL,
    BytePairTokenizer,
    gpt2_tokenizer,
    train_byte_pairs,
)
from nanogpt.data.tokenizers import ByteTokenizer, Tokenizer, char_tokenizer
from nanogpt.model.checkpoints import Checkpoint, load_model
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT

MIRROR = os.environ.get("NANOGPT_MIRROR")
# Text with a line feed, two-byte characters, digits and runs of spaces, for all tokenizers.
TEXT = "Où est l'été?  It's the 21st, isn't it?\n\tthe cat sat on the mat, the end.\n" * 9
PROMPT = "the été\n"

GPT2 = ModelSettings(n_layer=2, n_head=2, n_embd=16, block_size=32, dropout=0.1)
MODERN = ModelSettings(
    n_layer=2,
    n_head=2,
    n_embd=16,
    block_size=32,
    dropout=0.1,
    position="rotary",
    activation="relu2",
    norm="rmsnorm",
    embedding_norm=True,
    qk_norm=True,
    tie_word_embeddings=False,
    final_logit_softcapping=15,
    init="zero_proj",
)
# Each architecture, with other values of its free settings.
OTHERS = {
    "gpt2 with biases": GPT2.model_copy(update={"bias": True, "activation": "gelu_tanh"}),
    "gpt2 untied": GPT2.model_copy(update={"tie_word_embeddings": False, "activation": "relu2"}),
    "modern without a cap": MODERN.model_copy(
        update={"final_logit_softcapping": 0.0, "tie_word_embeddings": True, "activation": "gelu"}
    ),
    "modern with one head": MODERN.model_copy(update={"n_head": 1, "activation": "gelu_tanh"}),
}
TOKENIZERS = ("char", "byte", "bpe", "gpt2")

needs_mirror = pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set: no GPT-2 merges")


def merges_file() -> Path:
    """GPT-2's merges in the mirror."""
    return Path(MIRROR or "") / GPT2_MERGES_URL.removeprefix("https://")


@cache
def tokenizer(kind: str) -> Tokenizer:
    """A tokenizer of each kind."""
    if kind == "char":
        return char_tokenizer(TEXT)
    if kind == "byte":
        return ByteTokenizer()
    if kind == "gpt2":
        return gpt2_tokenizer(merges_file())
    trained = train_byte_pairs([TEXT], 290, threads=1)
    assert isinstance(trained, BytePairTokenizer)
    assert trained.vocab_size == 290
    return trained


def random_model(
    settings: ModelSettings,
    vocab_size: int,
    seed: int = 0,
    inside: float = 0.25,
    outside: float = 0.25,
) -> GPT:
    """A model with clearly different logits. With initial weights, they hardly differ.

    inside, outside: the spread of the blocks' weights, and of the embeddings'.
    """
    torch.manual_seed(seed)
    model = GPT(settings, vocab_size).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "ln_" in name and name.endswith("weight")
            spread = outside if name.startswith("w") else inside
            parameter.normal_(1.0 if is_norm else 0.0, spread)
    return model


def write_model(
    directory: Path, settings: ModelSettings = GPT2, kind: str = "char", seed: int = 0
) -> Path:
    """A model directory with random weights."""
    own = tokenizer(kind)
    model = random_model(settings, own.vocab_size, seed)
    save_model(directory, model.state_dict(), settings, own, own.encode("t").tolist())
    return directory


def assert_equal(first: Checkpoint, second: Checkpoint) -> None:
    """Check that two models are equal except for dropout."""
    assert first.tokenizer == second.tokenizer
    assert first.model.settings == second.model.settings
    weights, others = first.model.state_dict(), second.model.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def assert_same_model(first: Path, second: Path) -> None:
    """Check that two model directories have the same model."""
    assert_equal(load_model(first), load_model(second))


@torch.no_grad()
def greedy(model: torch.nn.Module, ids: list[int], n: int) -> list[int]:
    """The greedy continuation, with each token computed from all before it."""
    tokens: Tensor = torch.tensor([ids])
    for _ in range(n):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], dim=1)
    return tokens[0].tolist()
