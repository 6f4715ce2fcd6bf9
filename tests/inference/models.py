"""Small random models for tests of generation."""

from pathlib import Path

import pytest
import torch

from nanogpt.artifacts.records.ngram_counts import NgramHeader
from nanogpt.config.schema import ModelSettings, SampleSettings
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.inference.engine import Engine, Prompt, generate
from nanogpt.model.gpt import GPT
from nanogpt.ngram.counts import count, vocabulary_digest
from nanogpt.ngram.mixing import Ngrams
from nanogpt.ngram.trie import build_trie

TOKENIZER = char_tokenizer("abcdefghijklmnopqrstuvwxyz .,\nÉ日🎭")
VOCAB = TOKENIZER.vocab_size
BASE = SampleSettings(
    start="once",
    num_samples=1,
    max_new_tokens=12,
    temperature=1.0,
    top_k=0,
    seed=1337,
    device="cpu",
    dtype="float32",
)

with_fbgemm = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="this build of torch has no FBGEMM",
)

# Differences from GPT-2, one at a time and all together.
ARCHITECTURES = {
    "gpt2": {},
    "gpt2 with biases": {"bias": True, "activation": "gelu_tanh"},
    "rotary": {"position": "rotary"},
    "rmsnorm": {"norm": "rmsnorm", "embedding_norm": True},
    "qk_norm": {"qk_norm": True, "position": "rotary", "bias": True},
    "relu2": {"activation": "relu2"},
    "own output layer": {"tie_word_embeddings": False, "final_logit_softcapping": 15.0},
    "modern": {
        "position": "rotary",
        "activation": "relu2",
        "norm": "rmsnorm",
        "embedding_norm": True,
        "qk_norm": True,
        "tie_word_embeddings": False,
        "final_logit_softcapping": 15.0,
    },
}


def with_settings(**changes):
    return SampleSettings.model_validate(BASE.model_dump() | changes)


def make_model(block_size=16, scale=5.0, dtype=torch.float32, seed=0, **settings):
    """A model whose choices depend on its whole context."""
    torch.manual_seed(seed)
    small = {"n_layer": 2, "n_head": 2, "n_embd": 32, "dropout": 0.0} | settings
    model = GPT(ModelSettings(block_size=block_size, **small), VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale) if parameter.dim() >= 2 else parameter.add_(0.1)
    return model.to(dtype).eval()


def make_ngrams(weight, text="once upon a time there was a fox. " * 9):
    tokens = TOKENIZER.encode(text)
    header = NgramHeader(
        max_order=4,
        weight=weight,
        caution=0.5,
        vocab_size=VOCAB,
        vocabulary=vocabulary_digest(TOKENIZER),
        train_sha256="0" * 64,
        n_tokens=len(tokens),
    )
    return Ngrams(build_trie(count(tokens, VOCAB, 4)), header, Path("ngrams.safetensors"))


def prompts_of(rows, settings, **options):
    """Return a prompt for each row of tokens, with consecutive seeds."""
    return [
        Prompt(list(row), settings.model_copy(update={"seed": settings.seed + n}), **options)
        for n, row in enumerate(rows)
    ]


def draw(model, rows, settings, ngrams=None):
    """Return the tokens that continue each row, (B, T)."""
    prompts = prompts_of(rows.tolist(), settings)
    new = {id(prompt): [] for prompt in prompts}
    for step in generate(Engine(model, settings, ngrams=ngrams), prompts):
        new[id(step.sequence.prompt)].append(step.token)
    return torch.tensor(list(new.values()))


def random_prompts(n_rows, length, seed=5):
    return torch.randint(VOCAB, (n_rows, length), generator=torch.Generator().manual_seed(seed))
