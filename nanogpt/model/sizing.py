"""The size and cost of a model by its settings alone.

A model without any data is built, on torch's meta device, and its layers add up what they have.
docs/FORMULAS.md derives the formulas for GPT-2.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from nanogpt.config.schema import ModelSettings

if TYPE_CHECKING:
    from nanogpt.model.layers import Size


def n_parameters(settings: ModelSettings, vocab_size: int) -> int:
    """How many numbers a model learns, embeddings included."""
    return _size(settings, vocab_size).n_parameters


def flops_per_token(settings: ModelSettings, vocab_size: int) -> int:
    """FLOPs of matrix products for a token of training, forward and backward, at full context."""
    return _size(settings, vocab_size).flops_per_token


@lru_cache(maxsize=1024)  # a report asks for the same models again and again
def _size(settings: ModelSettings, vocab_size: int) -> "Size":
    # Late, because torch takes a second or more to import, and most who import this don't compute.
    import torch

    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import WithoutDraws

    with torch.device("meta"), WithoutDraws():
        return GPT(settings, vocab_size).size()
