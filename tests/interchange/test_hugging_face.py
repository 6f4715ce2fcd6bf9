"""A GPT-2 of transformers has the same logits here."""

import pytest
import torch
from safetensors.torch import load_file

from nanogpt.config.foreign import read_transformers_config
from nanogpt.config.parameters import as_parameters
from nanogpt.errors import UserError
from nanogpt.interchange.hugging_face import known_weights, our_weights
from nanogpt.model.gpt import GPT

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 24, "vocab_size": 61}
CONFIG = {"model_type": "gpt2", "activation_function": "gelu_new", "resid_pdrop": 0.1, **SMALL}

SHAPES = {
    "small": {},
    "one layer, one head": {"n_layer": 1, "n_head": 1, "n_embd": 16},
    "many heads": {"n_layer": 3, "n_head": 8, "n_embd": 64, "n_positions": 48},
    "another activation": {"activation_function": "gelu_pytorch_tanh"},
    "the exact activation": {"activation_function": "gelu"},
    "n_inner as it would be anyway": {"n_inner": 128},
    "a vocabulary like GPT-2's": {"vocab_size": 50257, "n_embd": 16},
}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def make_gpt2(transformers):
    """A function: config changes in, a GPT-2 with random weights, biases and norms out."""

    def make(scale=0.2, **changes):
        config = transformers.GPT2Config(**SMALL | changes)
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                is_norm = "ln_" in name and name.endswith("weight")
                parameter.normal_(1.0 if is_norm else 0.0, scale)
        return model

    return make


def converted(config, weights):
    """Our model from a Hugging Face config and weights."""
    described = read_transformers_config(config)
    model = GPT(described.settings, described.vocab_size)
    model.load_state_dict(our_weights(known_weights(weights, tied=True), described.settings))
    return model.eval()


def random_tokens(config):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(config.vocab_size, (3, config.n_positions), generator=generator)


@torch.no_grad()
def assert_same_logits(gpt2, model):
    tokens = random_tokens(gpt2.config)
    expected = gpt2(tokens).logits
    assert expected.std() > 0.3  # otherwise everything would be equal
    assert (model(tokens) - expected).abs().max().item() < 1e-4


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", [0.1, 0.2])
def test_the_logits_are_those_of_transformers(make_gpt2, changes, scale):
    gpt2 = make_gpt2(scale, **changes)
    assert_same_logits(gpt2, converted(gpt2.config.to_dict(), gpt2.state_dict()))


def test_the_logits_of_an_untrained_model_are_those_of_transformers(transformers):
    torch.manual_seed(0)
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SMALL)).eval()
    model = converted(gpt2.config.to_dict(), gpt2.state_dict())
    with torch.no_grad():
        tokens = random_tokens(gpt2.config)
        assert (model(tokens) - gpt2(tokens).logits).abs().max().item() < 1e-5


def test_saved_files_can_be_read(make_gpt2, tmp_path):
    gpt2 = make_gpt2()
    gpt2.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert_same_logits(gpt2, converted(gpt2.config.to_dict(), weights))


def test_old_files_can_be_read(make_gpt2):
    """Like GPT-2's own file, they have causal masks and no prefix `transformer.`."""
    gpt2 = make_gpt2()
    weights = {name.removeprefix("transformer."): t for name, t in gpt2.state_dict().items()}
    for layer in range(2):
        weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 24, 24).tril()
        weights[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    assert_same_logits(gpt2, converted(gpt2.config.to_dict(), weights))


def test_settings_are_read_from_the_config():
    described = read_transformers_config(CONFIG)
    assert described.vocab_size == 61
    assert as_parameters(described.settings) == {
        "position": "learned",
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "block_size": 24,
        "dropout": 0.1,
        "bias": True,
        "activation": "gelu_tanh",
    }


def test_the_given_weights_are_not_modified(make_gpt2):
    weights = make_gpt2().state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    our_weights(known_weights(weights, tied=True), read_transformers_config(CONFIG).settings)
    assert weights.keys() == before.keys()
    assert all(torch.equal(weights[name], before[name]) for name in before)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama"},
        {"model_type": None},
        {"n_inner": 100},
        {"activation_function": "relu"},
        {"activation_function": "silu"},
    ],
)
def test_another_architecture_is_rejected(changes):
    with pytest.raises(UserError) as error:
        read_transformers_config({**CONFIG, **changes})
    assert "\n" not in str(error.value)
    assert "GPT-2" in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"layer_norm_epsilon": 1e-3},
        {"add_cross_attention": True},
    ],
    ids=str,
)
def test_unsupported_settings_are_rejected(changes):
    with pytest.raises(UserError):
        read_transformers_config({**CONFIG, **changes})


def test_an_error_has_the_setting_and_its_supported_value():
    with pytest.raises(UserError) as error:
        read_transformers_config({**CONFIG, "n_inner": 100})
    assert "n_inner should be 4 * n_embd" in str(error.value)
    with pytest.raises(UserError) as error:
        read_transformers_config({**CONFIG, "scale_attn_weights": False})
    assert "scale_attn_weights: should be True" in str(error.value)


@pytest.mark.parametrize("missing", ["n_embd", "activation_function", "vocab_size"])
def test_a_config_without_a_required_setting_is_rejected(missing):
    config = {name: value for name, value in CONFIG.items() if name != missing}
    with pytest.raises(UserError, match=missing):
        read_transformers_config(config)
