"""What a model's settings say of its size and cost, before there is a model.

The formulas are derived in docs/FORMULAS.md.
"""

from nanogpt.config.schema import ModelSettings


def n_parameters(model: ModelSettings, vocab_size: int) -> int:
    """How many numbers a model learns, embeddings included."""
    L, C, V = model.n_layer, model.n_embd, vocab_size
    positions = model.block_size * C if model.position == "learned" else 0
    biases = 11 * L * C + C if model.bias else 0
    return V * C + positions + L * (12 * C**2 + 2 * C) + C + biases


def flops_per_token(model: ModelSettings, vocab_size: int) -> int:
    """FLOPs of matrix products that a token of a training takes, forward and backward.

    6 N + 12 L C T (PaLM, appendix B: https://arxiv.org/abs/2204.02311), where N counts what stands
    in a product. The masked half of attention counts as well, optimizer and dropout do not.
    """
    L, C, T = model.n_layer, model.n_embd, model.block_size
    in_products = 12 * L * C**2 + vocab_size * C
    return 6 * in_products + 12 * L * C * T
