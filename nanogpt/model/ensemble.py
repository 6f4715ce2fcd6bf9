"""Ensembles: several models whose predicted probabilities are averaged.

An ensemble has a GPT's interface as far as evaluation and sampling use it.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nanogpt.config.schema import ModelSettings
from nanogpt.model.gpt import GPT, KVCache
from nanogpt.model.kernels import exp, log, log_softmax


class Ensemble(nn.Module):
    """Models of one vocabulary. Each sees as many tokens as the one with the shortest context."""

    def __init__(self, members: Sequence[ModelSettings], vocab_size: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(GPT(settings, vocab_size) for settings in members)
        self.settings_of_members = list(members)
        self.widths = [settings.n_embd for settings in members]
        self.vocab_size = vocab_size
        self.settings = min(members, key=lambda settings: settings.block_size)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each of `idx` (B, T)."""
        return self.head(self.hidden(idx))

    def hidden(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """The hidden states of all models side by side, (B, T, sum of C)."""
        states = []
        first = 0
        for gpt in self._gpts():
            own = None
            if cache is not None:
                last = first + gpt.settings.n_layer
                own = KVCache(cache.keys[first:last], cache.values[first:last], cache.length)
                first = last
            states.append(gpt.hidden(idx, own))
        if cache is not None:
            cache.length += idx.shape[1]
        return torch.cat(states, dim=-1)

    def head(self, x: Tensor) -> Tensor:
        """Logarithms of the mean probabilities, (..., V), of hidden states (..., sum of C)."""
        of_members = [
            log_softmax(gpt.head(own).float())
            for gpt, own in zip(self._gpts(), torch.split(x, self.widths, dim=-1), strict=True)
        ]
        stacked = torch.stack(of_members)
        largest = stacked.amax(0)
        return largest + log(exp(stacked - largest).mean(0))

    def new_cache(self, batch_size: int, dtype: torch.dtype) -> KVCache:
        """An empty cache for `batch_size` sequences: the layers of all models in a row."""
        caches = [gpt.new_cache(batch_size, dtype) for gpt in self._gpts()]
        return KVCache(
            keys=[keys for cache in caches for keys in cache.keys],
            values=[values for cache in caches for values in cache.values],
        )

    def n_parameters(self) -> int:
        """How many numbers were learned, by all models together."""
        return sum(gpt.n_parameters() for gpt in self._gpts())

    def _gpts(self) -> list[GPT]:
        return [cast(GPT, member) for member in self.members]


# What evaluation and sampling take.
Model = GPT | Ensemble
