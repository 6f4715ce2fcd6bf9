"""A small model, and a slow loop that computes its loss, for tests of losses and evaluation."""

import numpy as np
import torch

from nanogpt.config.schema import EvalSettings, ModelSettings
from nanogpt.model.gpt import GPT

SETTINGS = EvalSettings(batch_size=4, eval_iters=3, seed=1337, device="cpu", dtype="float32")
BLOCK = 16


def make_model(vocab_size, seed=0, scale=5.0, **changes):
    """A confident model with block size 16, so that tokens have clearly different losses."""
    small = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": BLOCK, "dropout": 0.0}
    torch.manual_seed(seed)
    model = GPT(ModelSettings(**small | changes), vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    return model


def make_tokens(n_tokens, vocab_size, seed=0):
    return np.random.default_rng(seed).integers(vocab_size, size=n_tokens).astype(np.uint16)


@torch.no_grad()
def log_probabilities(model, context):
    """Return a model's probabilities (V,) after a context."""
    logits = model.eval()(torch.tensor([[int(id_) for id_ in context]]))[0, -1]
    return logits.double().log_softmax(-1).numpy()


def slow_nats(model, tokens):
    """Return the nats of all tokens except the first, given the tokens before in their window."""
    return [
        -log_probabilities(model, tokens[(i - 1) // BLOCK * BLOCK : i])[int(tokens[i])]
        for i in range(1, len(tokens))
    ]


def slow_loss(model, tokens):
    return sum(slow_nats(model, tokens))


MODEL = make_model(11)
