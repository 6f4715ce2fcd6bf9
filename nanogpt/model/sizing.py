"""The size and cost of a model, computed from its settings.

We build the model on torch's meta device, without data, and add up its layers. docs/FORMULAS.md
derives the formulas for GPT-2.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from nanogpt.config.schema import ModelSettings

if TYPE_CHECKING:
    from nanogpt.model.layers import Size


def n_parameters(settings: ModelSettings, vocab_size: int) -> int:
    """Return a model's number of parameters, including embeddings."""
    return _size(settings, vocab_size).n_parameters


def flops_per_token(settings: ModelSettings, vocab_size: int) -> int:
    """Return the matrix-product FLOPs per trained token, forward and backward, at full context."""
    return _size(settings, vocab_size).flops_per_token


@lru_cache(maxsize=1024)  # a report looks up the same models many times
def _size(settings: ModelSettings, vocab_size: int) -> "Size":
    # Imported here, because torch takes a second or more and most callers never need it.
    import torch

    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import WithoutDraws

    with torch.device("meta"), WithoutDraws():
        return GPT(settings, vocab_size).size()
