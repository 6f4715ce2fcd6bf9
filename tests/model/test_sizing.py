"""Sizes and costs agree with docs/FORMULAS.md, with the model itself, and with torch's counter."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nanogpt.config.schema import ModelSettings
from nanogpt.model.gpt import GPT
from nanogpt.model.sizing import flops_per_token, n_parameters


@st.composite
def model_settings(draw):
    n_head = draw(st.integers(1, 4))
    return ModelSettings(
        n_layer=draw(st.integers(1, 3)),
        n_head=n_head,
        n_embd=n_head * draw(st.sampled_from([2, 4, 8])),
        block_size=draw(st.integers(2, 40)),
        dropout=draw(st.sampled_from([0.0, 0.2])),
        bias=draw(st.booleans()),
        position=draw(st.sampled_from(["learned", "rotary"])),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        tie_word_embeddings=draw(st.booleans()),
    )


def parameters_by_formula(model, vocab_size):
    """docs/FORMULAS.md, "Parameters"."""
    L, C, T, V = model.n_layer, model.n_embd, model.block_size, vocab_size
    positions = T * C if model.position == "learned" else 0
    head = 0 if model.tie_word_embeddings else V * C
    norms = (2 * L + 1) * C * (0 if model.norm == "rmsnorm" else 1 + model.bias)
    biases = 9 * C * L if model.bias else 0
    return V * C + positions + head + L * 12 * C**2 + norms + biases


def flops_by_formula(model, vocab_size):
    """docs/FORMULAS.md, "FLOPs"."""
    L, C, T, V = model.n_layer, model.n_embd, model.block_size, vocab_size
    N = 12 * L * C**2 + V * C
    return 6 * N + 12 * L * C * T


@settings(max_examples=50, deadline=None)
@given(model=model_settings(), vocab_size=st.integers(1, 300))
def test_sizes_agree_with_the_formulas(model, vocab_size):
    assert n_parameters(model, vocab_size) == parameters_by_formula(model, vocab_size)
    assert flops_per_token(model, vocab_size) == flops_by_formula(model, vocab_size)


@settings(max_examples=50, deadline=None)
@given(model=model_settings(), vocab_size=st.integers(1, 300))
def test_the_layers_add_up_to_all_parameters_of_the_model(model, vocab_size):
    gpt = GPT(model, vocab_size)
    assert gpt.n_parameters() == sum(parameter.numel() for parameter in gpt.parameters())
    assert gpt.n_parameters() == n_parameters(model, vocab_size)


def test_sizing_draws_no_random_number():
    before = torch.get_rng_state()
    n_parameters(ModelSettings(n_layer=2, n_head=1, n_embd=4, block_size=9), 123)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_sizing_imports_neither_torch_early_nor_its_compiler(position):
    script = f"""
import sys
from nanogpt.config.schema import ModelSettings
from nanogpt.model.sizing import n_parameters
assert "torch" not in sys.modules
n_parameters(ModelSettings(position={position!r}), 65)
assert "torch" in sys.modules
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_gpt2_has_its_124_million_parameters():
    gpt2 = ModelSettings(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True)
    assert n_parameters(gpt2, 50_257) == 124_439_808


def flops_by_torch(model_settings, vocab_size, batch_size):
    """torch's FLOP count in bfloat16, where it knows all operators for products on a CPU."""
    model = GPT(model_settings, vocab_size)
    tokens = torch.zeros(batch_size, model_settings.block_size, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(tokens).sum().backward()
    return counter.get_total_flops() / tokens.numel()


@settings(max_examples=20, deadline=None)
@given(model=model_settings(), vocab_size=st.integers(1, 300), batch_size=st.integers(1, 3))
def test_flops_agree_with_torchs_counter(model, vocab_size, batch_size):
    assert flops_per_token(model, vocab_size) == flops_by_torch(model, vocab_size, batch_size)


def test_the_documentations_example_is_correct():
    model = ModelSettings(n_layer=4, n_head=4, n_embd=128, block_size=128, dropout=0.0)
    assert flops_per_token(model, 65) == flops_by_torch(model, 65, 2) == 5_554_944
