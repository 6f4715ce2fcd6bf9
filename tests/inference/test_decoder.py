"""A decoder agrees with the model, however it reads the tokens."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config.schema import ModelSettings
from nanogpt.inference import products
from nanogpt.inference.decoder import decoder_of
from nanogpt.inference.products import Int8Product
from nanogpt.model.ensemble import Ensemble
from nanogpt.model.gpt import GPT
from tests.checkouts import PROJECT
from tests.inference.models import (
    ARCHITECTURES,
    VOCAB,
    make_model,
    random_prompts,
    with_fbgemm,
)


@torch.inference_mode()
def differences(model, rows, lengths, dtype):
    """Return how far each row's logits are from the model's: for its prompt, then token by token.

    lengths: of the prompts. Rows are read one by one, then continued in one batch.
    """
    window = model.settings.block_size
    decoder = decoder_of(model, dtype, window)
    decoder.reserve(len(rows))
    expected = model(rows)
    found = []
    for slot, length in enumerate(lengths):
        logits = decoder.read(rows[slot, :length].tolist(), slot, length)
        found.append((logits - expected[slot, :length]).abs().max())
    for step in range(rows.shape[1] - max(lengths)):
        places = [length + step for length in lengths]
        logits = decoder.step([int(rows[n, place]) for n, place in enumerate(places)], places)
        rows_there = expected[torch.arange(len(rows)), torch.tensor(places)]
        found.append((logits - rows_there).abs().max())
    return torch.stack(found).max().item()


@settings(deadline=None, max_examples=60)
@given(
    architecture=st.sampled_from(list(ARCHITECTURES)),
    n_layer=st.integers(1, 3),
    n_head=st.sampled_from([1, 2, 4]),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    n_more=st.integers(0, 12),
    seed=st.integers(0, 1000),
)
def test_logits_agree_with_the_model_up_to_the_window(
    architecture, n_layer, n_head, lengths, n_more, seed
):
    """Equal prompts use the code for one length, others the code for different lengths."""
    length = max(lengths) + n_more
    own = ARCHITECTURES[architecture] | {"n_layer": n_layer, "n_head": n_head}
    rows = random_prompts(len(lengths), length, seed)
    model = make_model(length, 3.0, seed=seed, **own)
    assert differences(model, rows, lengths, torch.float32) < 1e-4
    assert differences(model.double(), rows, lengths, torch.float64) < 1e-10


@pytest.mark.parametrize("architecture", ["gpt2 with biases", "modern"])
def test_packed_weights_give_the_same_logits(architecture, monkeypatch):
    """Only large weights are packed; the test packs all of them."""
    monkeypatch.setattr(products, "PACKED_FROM", 1)
    model = make_model(20, **ARCHITECTURES[architecture])
    rows = random_prompts(3, 20)
    assert differences(model, rows, [3, 3, 3], torch.float32) < 1e-4
    assert differences(model, rows, [1, 7, 12], torch.float32) < 1e-4


@pytest.mark.parametrize("architecture", ["gpt2 with biases", "modern"])
@pytest.mark.parametrize("n_embd", [32, 384])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.int8, marks=with_fbgemm)])
@torch.inference_mode()
def test_in_a_batch_a_sequences_bits_do_not_depend_on_the_others(architecture, n_embd, dtype):
    own = ARCHITECTURES[architecture] | {"n_embd": n_embd, "n_head": 4}
    model, rows = make_model(41, 2.0, **own), random_prompts(12, 40)
    lengths = [5, 9, 17, 20, 3, 11, 30, 7, 8, 9, 10, 11]

    def logits_of(some):
        decoder = decoder_of(model, dtype, 41)
        decoder.reserve(len(some))
        for slot, row in enumerate(some):
            decoder.read(rows[row, : lengths[row]].tolist(), slot, 1)
        steps = []
        for step in range(10):
            places = [lengths[row] + step for row in some]
            tokens = [int(rows[row, place]) for row, place in zip(some, places, strict=True)]
            steps.append(decoder.step(tokens, places))
        return torch.stack(steps, dim=1)  # (B, 10, V)

    everyone = logits_of(range(12))
    for some in ([0, 1], [6, 0], [3, 7, 4], [9, 8, 7, 6, 5, 4, 3]):
        assert torch.equal(logits_of(some), everyone[some])


@pytest.mark.parametrize("architecture", ["gpt2 with biases", "modern"])
@pytest.mark.parametrize("n_embd", [32, 384])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.int8, marks=with_fbgemm)])
@torch.inference_mode()
def test_prompts_read_together_have_the_bits_of_each_read_alone(architecture, n_embd, dtype):
    own = ARCHITECTURES[architecture] | {"n_embd": n_embd, "n_head": 4}
    lengths = [5, 2, 17, 41, 3, 16, 30]
    contexts = [row[:T].tolist() for row, T in zip(random_prompts(7, 41), lengths, strict=True)]
    decoder = decoder_of(make_model(41, 2.0, **own), dtype, 41)
    decoder.reserve(8)
    together = decoder.read_together(contexts, range(1, 8))
    for slot, (tokens, logits) in enumerate(zip(contexts, together, strict=True), 1):
        assert torch.equal(decoder.read(tokens, 0, 1)[0], logits)
        kept = decoder.cache[:, :, :, :, : len(tokens)]
        assert torch.equal(kept[:, :, 0], kept[:, :, slot])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_logits_are_close_to_a_bfloat16_forward_pass(architecture):
    model, rows = make_model(20, 3.0, **ARCHITECTURES[architecture]), random_prompts(3, 20)
    with torch.inference_mode():
        decoder = decoder_of(model, torch.bfloat16, 20)
        decoder.reserve(3)
        for slot in range(3):
            decoder.read(rows[slot, :8].tolist(), slot, 1)
        logits = decoder.step(rows[:, 8].tolist(), [8, 8, 8])
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(rows[:, :9])[:, -1].float()
    torch.testing.assert_close(logits, expected, atol=0.15, rtol=0.05)


@with_fbgemm
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.inference_mode()
def test_int8_logits_are_close_to_the_models(architecture):
    """Rounding to 7 bits costs one or two percent of the size of the logits per product."""
    model, rows = make_model(20, 3.0, **ARCHITECTURES[architecture]), random_prompts(3, 20)
    difference = differences(model, rows, [3, 8, 12], torch.int8)
    assert 1e-4 < difference < 0.1 * model(rows).abs().max()


@with_fbgemm
@pytest.mark.parametrize("n_rows", [1, 2, 5, 16, 33])
@torch.inference_mode()
def test_an_int8_product_is_the_product_of_the_rounded_factors(n_rows):
    """Compare with integers in float64, for rows of zeros and of very large and small numbers."""
    torch.manual_seed(n_rows)
    x, weight, bias = torch.randn(n_rows, 300), torch.randn(70, 300), torch.randn(70)
    x[-1] *= 1e12
    x[0], weight[0], weight[1] = 0, 0, 1e-20
    x_scale = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / 63
    w_scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    whole = (x / x_scale).round().double() @ (weight / w_scale).round().double().T
    expected = (whole * x_scale * w_scale.T + bias).float()
    torch.testing.assert_close(Int8Product(weight, bias)(x), expected, rtol=1e-5, atol=1e-5)
    without_bias = Int8Product(weight, None)(x)
    torch.testing.assert_close(without_bias + bias, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_works_on_a_cpu_without_it():
    """oneDNN can't pack weights there, so they stay unpacked."""
    code = """
import torch
from nanogpt.inference import decoder, products
from tests.inference.models import make_model
products.PACKED_FROM = 1
with torch.inference_mode():
    small = decoder.decoder_of(make_model(), torch.bfloat16, 16)
    small.reserve(1)
    print(small.read([1, 2, 3], 0, 1).isfinite().all().item())
"""
    held = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=PROJECT, env=held, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]


@torch.inference_mode()
def test_an_ensemble_averages_members_with_different_windows():
    sizes = (ModelSettings(n_layer=1, n_head=2, n_embd=32, block_size=12, dropout=0.0),)
    sizes += (ModelSettings(n_layer=2, n_head=1, n_embd=16, block_size=30, dropout=0.0),)
    torch.manual_seed(0)
    ensemble = Ensemble(sizes, VOCAB).eval()
    assert ensemble.settings.block_size == 12
    assert differences(ensemble, random_prompts(3, 12), [1, 4, 6], torch.float32) < 1e-5


@torch.inference_mode()
def test_a_slot_can_be_copied():
    model, rows = make_model(), random_prompts(1, 8)
    decoder = decoder_of(model, torch.float32, 16)
    decoder.reserve(2)
    decoder.read(rows[0, :7].tolist(), 0, 1)
    decoder.copy(0, 1)
    logits = decoder.step([int(rows[0, 7])] * 2, [7, 7])
    torch.testing.assert_close(logits[1], logits[0])
    torch.testing.assert_close(logits[:1], model(rows)[:, -1], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_reserving_more_slots_keeps_the_content_of_earlier_ones():
    model, rows = make_model(), random_prompts(1, 8)
    decoder = decoder_of(model, torch.float32, 16)
    decoder.reserve(1)
    decoder.read(rows[0, :7].tolist(), 0, 1)
    decoder.reserve(5)
    logits = decoder.step([int(rows[0, 7])], [7])
    torch.testing.assert_close(logits, model(rows)[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_layer", [1, 3])
@torch.inference_mode()
def test_past_the_window_rotary_models_attend_to_the_last_tokens(n_layer):
    """Compare with sliding-window attention in one pass: each query sees the last `window` keys."""
    window, length = 8, 29
    own = ARCHITECTURES["modern"] | {"n_layer": n_layer}
    wide = make_model(length, dtype=torch.float64, **own)
    narrow = GPT(wide.settings.model_copy(update={"block_size": window}), VOCAB).double().eval()
    narrow.load_state_dict(wide.state_dict())
    rows = random_prompts(2, length)
    decoder = decoder_of(narrow, torch.float64, window)
    decoder.reserve(2)
    for slot in range(2):
        decoder.read(rows[slot, :window].tolist(), slot, 1)
    mask = torch.ones(length, length, dtype=torch.bool).tril().triu(1 - window)

    def attend(q, k, v, _dropout):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanogpt.model.gpt.attend", attend)
        expected = wide(rows)
    for place in range(window, length):
        logits = decoder.step(rows[:, place].tolist(), [place, place])
        torch.testing.assert_close(logits, expected[:, place], atol=1e-6, rtol=0)
