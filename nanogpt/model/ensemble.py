"""Ensembles: several models whose predicted probabilities are averaged.

An ensemble has the part of a GPT's interface that evaluation and sampling use.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nanogpt.config.schema import ModelSettings
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import exp, log, log_softmax


class Ensemble(nn.Module):
    """Models with the same vocabulary. The shortest context limits all of them."""

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

    def hidden(self, idx: Tensor) -> Tensor:
        """All models' hidden states, concatenated: (B, T, sum of C)."""
        return torch.cat([gpt.hidden(idx) for gpt in self.gpts()], dim=-1)

    def head(self, x: Tensor) -> Tensor:
        """Logarithms of the mean probabilities (..., V) from hidden states (..., sum of C)."""
        states = torch.split(x, self.widths, dim=-1)
        return mean_log_probabilities(
            [gpt.head(own).float() for gpt, own in zip(self.gpts(), states, strict=True)]
        )

    def n_parameters(self) -> int:
        """The number of learned numbers in all models together."""
        return sum(gpt.n_parameters() for gpt in self.gpts())

    def gpts(self) -> list[GPT]:
        """The models."""
        return [cast(GPT, member) for member in self.members]


def mean_log_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Return the logarithms of the mean probabilities, (..., V), from several models' logits."""
    stacked = torch.stack([log_softmax(of_one) for of_one in logits])
    largest = stacked.amax(0)
    return largest + log(exp(stacked - largest).mean(0))


# The type that evaluation and sampling accept.
Model = GPT | Ensemble
