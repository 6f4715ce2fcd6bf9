"""Sizes and costs by formula are those of the model that the settings make."""

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
    )


@settings(max_examples=50, deadline=None)
@given(model=model_settings(), vocab_size=st.integers(1, 300))
def test_the_formula_of_the_parameters_counts_those_of_the_model(model, vocab_size):
    assert n_parameters(model, vocab_size) == GPT(model, vocab_size).n_parameters()


def test_gpt2_has_its_124_million_parameters():
    gpt2 = ModelSettings(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True)
    assert n_parameters(gpt2, 50_257) == 124_439_808


def counted_flops_per_token(model_settings, vocab_size, batch_size):
    """What torch counts in bfloat16, where all products on a CPU are operators that it knows."""
    model = GPT(model_settings, vocab_size)
    tokens = torch.zeros(batch_size, model_settings.block_size, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(tokens).sum().backward()
    return counter.get_total_flops() / tokens.numel()


@settings(max_examples=20, deadline=None)
@given(model=model_settings(), vocab_size=st.integers(1, 300), batch_size=st.integers(1, 3))
def test_the_formula_of_the_flops_counts_what_torch_counts(model, vocab_size, batch_size):
    assert flops_per_token(model, vocab_size) == counted_flops_per_token(
        model, vocab_size, batch_size
    )


def test_the_example_of_the_documentation_is_true():
    model = ModelSettings(n_layer=4, n_head=4, n_embd=128, block_size=128, dropout=0.0)
    assert flops_per_token(model, 65) == counted_flops_per_token(model, 65, 2) == 5_554_944
