"""The model is GPT-2: shapes, initial weights, causality, and the modern options."""

import math

import pytest
import torch
from torch.nn import functional as F

from nanogpt.config.schema import ModelSettings
from nanogpt.model.gpt import GPT, rotary_tables
from nanogpt.model.kernels import rotate
from tests.recipes import MODERN

VOCAB = 65


def make_model(settings, vocab_size=VOCAB, seed=0, scale=5.0):
    """A model in evaluation mode, with weights large enough for attention to matter."""
    torch.manual_seed(seed)
    model = GPT(settings, vocab_size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    return model


# Different architectures, from GPT-2 to the recipe of `models.modern`.
KINDS = {"learned": {}, "rotary": {"position": "rotary"}, "modern": MODERN}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def model(tiny, request):
    return make_model(tiny.model_copy(update=request.param))


@pytest.fixture
def tokens(tiny):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCAB, (3, tiny.block_size), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_token_never_sees_what_comes_after_it(model, tokens, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        before = model(tokens)
        for t in range(tokens.shape[1]):
            changed = tokens.clone()
            changed[:, t] = (changed[:, t] + 1) % VOCAB
            after = model(changed)
            assert torch.equal(before[:, :t], after[:, :t])
            assert not torch.allclose(before[:, t], after[:, t])


@torch.no_grad()
def test_a_token_sees_everything_before_it(model, tokens):
    before = model(tokens)
    for t in range(tokens.shape[1]):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % VOCAB
        moved = (model(changed) - before).abs().amax(-1)[:, t:]  # (B, T - t)
        assert (moved > 1e-4).all()


@torch.no_grad()
def test_a_tokens_position_matters(model):
    logits = model(torch.tensor([[1, 2, 3], [2, 1, 3]]))[:, -1]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


@torch.no_grad()
def test_sequences_in_a_batch_do_not_see_each_other(model, tokens):
    together = model(tokens)
    for row in range(len(tokens)):
        torch.testing.assert_close(model(tokens[[row]])[0], together[row])


@torch.no_grad()
def test_each_token_has_logits_for_the_whole_vocabulary(model):
    assert model(torch.zeros(2, 7, dtype=torch.long)).shape == (2, 7, VOCAB)
    assert model.hidden(torch.zeros(2, 7, dtype=torch.long)).shape == (2, 7, 32)


def test_nanogpts_character_model_has_its_10_65_million_parameters():
    settings = ModelSettings(n_layer=6, n_head=6, n_embd=384, block_size=256)
    with torch.device("meta"):
        model = GPT(settings, VOCAB)
    # nanoGPT doesn't count position embeddings.
    assert model.n_parameters() - model.wpe.weight.numel() == 10_646_784


def test_initial_weights_match_gpt2s():
    settings = ModelSettings(n_layer=8, n_head=2, n_embd=128, block_size=64, bias=True)
    torch.manual_seed(0)
    model = GPT(settings, VOCAB)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "ln_" in name:
            assert (parameter == 1).all(), name
        else:
            into_the_stream = name.endswith("c_proj.weight")
            std = 0.02 / math.sqrt(2 * 8) if into_the_stream else 0.02
            standard_error = std / math.sqrt(2 * parameter.numel())
            assert abs(parameter.std().item() - std) < 5 * standard_error, name
            assert abs(parameter.mean().item()) < 5 * std / math.sqrt(parameter.numel()), name


@pytest.mark.parametrize("vocab_size", [10, 65, 1000])
@torch.no_grad()
def test_an_untrained_model_is_about_as_good_as_guessing(tiny, vocab_size):
    torch.manual_seed(0)
    model = GPT(tiny, vocab_size)
    rows = torch.randint(vocab_size, (64, 17))
    loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(vocab_size), abs=0.05)


@torch.no_grad()
def test_the_output_layer_is_the_token_embedding(tiny, tokens):
    model = make_model(tiny)
    assert [name for name, p in model.named_parameters() if VOCAB in p.shape] == ["wte.weight"]
    assert [name for name, t in model.state_dict().items() if VOCAB in t.shape] == ["wte.weight"]
    expected = model.hidden(tokens) @ model.wte.weight.T
    torch.testing.assert_close(model(tokens), expected)


def test_bias_false_removes_every_bias(tiny):
    names = [name for name, _ in GPT(tiny, VOCAB).named_parameters()]
    assert not [name for name in names if "bias" in name]
    with_bias = GPT(tiny.model_copy(update={"bias": True}), VOCAB)
    biases = [name for name, _ in with_bias.named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 * 6 + 1  # each block's four layers and two norms, and ln_f


def test_parameters_have_gpt2s_names(tiny):
    block = {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"}
    names = {f"h.{layer}.{name}.weight" for layer in range(2) for name in block}
    names |= {"wte.weight", "wpe.weight", "ln_f.weight"}
    assert GPT(tiny, VOCAB).state_dict().keys() == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_dropout_applies_only_during_training(tiny, tokens, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        model = make_model(tiny.model_copy(update={"dropout": 0.5}))
        without = make_model(tiny)
        assert torch.equal(model(tokens), without(tokens))
        model.train()
        assert not torch.allclose(model(tokens), model(tokens))
        assert torch.equal(without.train()(tokens), without.eval()(tokens))


@torch.no_grad()
def test_dropout_applies_to_embeddings_attention_weights_and_branch_outputs(tiny, tokens):
    model = make_model(tiny.model_copy(update={"dropout": 1 - 1e-6})).train()
    reached = {}

    def record(name):
        return lambda _, inputs: reached.update({name: inputs[0]})

    model.h[0].register_forward_pre_hook(record("first block"))
    model.ln_f.register_forward_pre_hook(record("last norm"))
    model(tokens)
    assert not reached["first block"].any()
    assert not reached["last norm"].any()
    attention = model.h[0].attn
    attention.c_proj.register_forward_pre_hook(record("projection"))
    attention(torch.randn(2, 16, 32), None)
    assert not reached["projection"].any()


@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
@torch.no_grad()
def test_the_activation_follows_the_setting(tiny, activation, approximate):
    mlp = make_model(tiny.model_copy(update={"activation": activation})).h[0].mlp
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    u = x.double() @ mlp.c_fc.weight.double().T
    if approximate == "none":
        u = u * 0.5 * (1 + torch.erf(u / math.sqrt(2)))
    else:
        u = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    # They differ by 5e-4 at most, which is more than float32's rounding error.
    torch.testing.assert_close(
        mlp(x), (u @ mlp.c_proj.weight.double().T).float(), atol=1e-5, rtol=0
    )


def test_the_two_activations_differ(tiny):
    tokens = torch.arange(16)[None]
    exact, tanh = (
        make_model(tiny.model_copy(update={"activation": a}))(tokens) for a in ("gelu", "gelu_tanh")
    )
    assert not torch.equal(exact, tanh)
    torch.testing.assert_close(exact, tanh, atol=0.05, rtol=0)


def test_the_same_seed_gives_the_same_initial_weights(tiny):
    first, second, other = (make_model(tiny, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["wte.weight"], other["wte.weight"])


# --- The modern parts -----------------------------------------------------------------------


def rms_normed(x):
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


@torch.no_grad()
def test_a_modern_model_agrees_with_one_written_by_hand(tiny, tokens):
    settings = tiny.model_copy(update=MODERN)
    model = make_model(settings)
    weights = {name: weight.double() for name, weight in model.state_dict().items()}
    turns = rotary_tables(16, 16)[..., 0, 0, :]  # (2, T, D / 2)
    mask = torch.ones(16, 16, dtype=torch.bool).triu(1)
    x = rms_normed(weights["wte.weight"][tokens])
    for layer in range(2):
        w = {
            name: weights[f"h.{layer}.{name}.weight"]
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        }
        q, k, v = (
            part.unflatten(-1, (2, 16)).transpose(1, 2)
            for part in (rms_normed(x) @ w["attn.c_attn"].T).chunk(3, dim=-1)
        )
        q, k = rms_normed(rotate(q, *turns)), rms_normed(rotate(k, *turns))
        scores = (q @ k.mT / math.sqrt(16)).masked_fill(mask, -math.inf)
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ w["attn.c_proj"].T
        x = x + (rms_normed(x) @ w["mlp.c_fc"].T).relu().square() @ w["mlp.c_proj"].T
    logits = rms_normed(x) @ weights["lm_head.weight"].T
    expected = 15 * torch.tanh(logits / 15)
    torch.testing.assert_close(model(tokens).double(), expected, atol=1e-3, rtol=1e-4)


def test_an_rms_norm_has_no_parameters(tiny):
    names = GPT(tiny.model_copy(update={"norm": "rmsnorm"}), VOCAB).state_dict()
    assert not [name for name in names if "ln_" in name]


@torch.no_grad()
def test_logits_stay_below_the_soft_cap(tiny, tokens):
    capped = tiny.model_copy(update={"final_logit_softcapping": 2.0})
    without, with_cap = make_model(tiny, scale=50)(tokens), make_model(capped, scale=50)(tokens)
    assert without.abs().max() > 2
    assert with_cap.abs().max() <= 2


@torch.no_grad()
def test_zero_projections_pass_the_embedding_through_and_predict_uniformly(tiny, tokens):
    model = GPT(tiny.model_copy(update={**MODERN, "init": "zero_proj"}), VOCAB)
    assert not model(tokens).any()
    torch.testing.assert_close(
        model.hidden(tokens), rms_normed(model.wte(tokens)), atol=1e-3, rtol=0
    )
    for name, weight in model.named_parameters():
        if name.endswith(("c_attn.weight", "c_fc.weight")):
            assert weight.std().item() == pytest.approx(32**-0.5, rel=0.1), name
    assert model.wte.weight.std().item() == pytest.approx(1, rel=0.1)


def test_a_tied_embedding_keeps_its_small_initial_weights(tiny):
    model = GPT(tiny.model_copy(update={"init": "zero_proj"}), VOCAB)
    assert model.wte.weight.std().item() == pytest.approx(0.02, rel=0.1)


# --- Rotary positions -----------------------------------------------------------------------


def test_rotating_a_pair_is_multiplying_by_a_complex_number():
    """RoPE's formula in complex numbers: x_m -> x_m exp(i m 10000^(-2j/D))."""
    x = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, *rotary_tables(7, 8)[..., 0, 0, :])
    pairs = torch.complex(x[..., :4].double(), x[..., 4:].double())
    places = torch.arange(7, dtype=torch.float64)[:, None]
    speeds = 10_000.0 ** (-2 * torch.arange(4, dtype=torch.float64) / 8)
    expected = pairs * torch.exp(1j * places * speeds)
    torch.testing.assert_close(turned[..., :4].double(), expected.real, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[..., 4:].double(), expected.imag, atol=1e-5, rtol=0)


def test_rotary_scores_depend_on_distance_not_position():
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    turns = rotary_tables(20, 8)
    scores = [
        (rotate(q, *turns[:, n + 3]) * rotate(k, *turns[:, n])).sum().item() for n in range(17)
    ]
    assert scores == pytest.approx([scores[0]] * 17, abs=1e-5)
    farther = (rotate(q, *turns[:, 5]) * rotate(k, *turns[:, 0])).sum().item()
    assert abs(farther - scores[0]) > 1e-3


def test_rotary_positions_are_not_learned_and_not_stored(tiny):
    model = GPT(tiny.model_copy(update={"position": "rotary"}), VOCAB)
    assert "wpe.weight" not in model.state_dict()
    assert not [name for name in model.state_dict() if "turns" in name]
