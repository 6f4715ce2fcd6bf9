"""AdamW follows its paper and gets the right parameters."""

import numpy as np
import pytest
import torch

from nanogpt.config.schema import TrainSettings
from nanogpt.model.gpt import GPT
from nanogpt.training.optimizers import configure_adamw, configure_optimizer
from nanogpt.training.step import loss_function, loss_scaler, optimizer_step


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    return GPT(tiny.model_copy(update={"bias": True}), 65)


def test_only_matrices_and_embeddings_decay(model):
    optimizer = configure_adamw(model, TrainSettings(weight_decay=0.3))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_vector = name.endswith("bias") or "ln_" in name
        assert decay[id(parameter)] == (0.0 if is_vector else 0.3), name


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_each_parameter_is_in_exactly_one_group(tiny, name, tied):
    settings = tiny.model_copy(update={"bias": True, "tie_word_embeddings": tied})
    model = GPT(settings, 65)
    groups = configure_optimizer(model, TrainSettings(optimizer=name)).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_clears_every_gradient(model, name):
    settings = TrainSettings(optimizer=name, device="cpu", dtype="float32", batch_size=2)
    optimizer, scaler = configure_optimizer(model, settings), loss_scaler(settings)
    windows = np.arange(2 * 17).reshape(2, 17)
    before = [p.detach().clone() for p in model.parameters()]
    loss_of = loss_function(model, settings)
    optimizer_step(loss_of, optimizer, scaler, windows, 1e-3, settings, step=0)
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert parameter.grad is None, name
        assert not torch.equal(parameter, old), name


def test_muon_gets_the_blocks_matrices_and_each_kind_has_its_rate(tiny):
    model = GPT(tiny.model_copy(update={"bias": True, "tie_word_embeddings": False}), 65)
    settings = TrainSettings(
        optimizer="muon", matrix_lr=1, embedding_lr=2, unembedding_lr=3, learning_rate=0.5
    )
    optimizer = configure_optimizer(model, settings)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        if name.startswith("h.") and parameter.dim() == 2:
            expected = (1, 0.1, True)
        else:
            rate = {"wte.weight": 2, "lm_head.weight": 3}.get(name, 0.5)
            expected = (rate, 0.0, False)
        assert (group["initial_lr"], group["weight_decay"], "shape" in group) == expected, name


def test_steps_agree_with_a_hand_written_adamw(model):
    settings = TrainSettings(learning_rate=0.01, weight_decay=0.5, beta1=0.8, beta2=0.95)
    optimizer = configure_adamw(model, settings)
    expected = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    m = {name: torch.zeros_like(p) for name, p in expected.items()}
    v = {name: torch.zeros_like(p) for name, p in expected.items()}
    generator = torch.Generator().manual_seed(3)
    for t in (1, 2, 3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            g, w = parameter.grad.double(), expected[name]
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.95 * v[name] + 0.05 * g**2
            m_hat, v_hat = m[name] / (1 - 0.8**t), v[name] / (1 - 0.95**t)
            decay = 0.0 if parameter.dim() == 1 else 0.5
            expected[name] = w - 0.01 * decay * w - 0.01 * m_hat / (v_hat.sqrt() + 1e-8)
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name].float(), atol=1e-6, rtol=0)


def test_each_group_has_its_initial_rate(model):
    groups = configure_adamw(model, TrainSettings(learning_rate=0.02)).param_groups
    assert [group["initial_lr"] for group in groups] == [0.02, 0.02]
