"""GPT: a decoder-only transformer. Tokens in, logits out.

- GPT-2's architecture and parameter names (`wte`, `wpe`, `h.0.attn.c_attn`, ..., `ln_f`)
- token embedding tied to the output layer, or a separate output layer; optional logit soft-capping
- learned positions, or rotary embeddings (RoPE)
- pre-norm blocks: x + attention(norm(x)), then x + MLP(norm(x)), and a norm after the last block
  (LayerNorm, or RMSNorm without weights); optional RMSNorm after the token embedding
- causal multi-head attention; optional RMSNorm of queries and keys
- MLP four times as wide inside, with exact or tanh-approximated GELU, or squared ReLU
- biases in all linear layers and norms, or in none
- dropout on embeddings, attention weights, and the output of each branch
- GPT-2's initialization: normal with std 0.02, smaller for the projections into the residual
  stream; or zero for these, as in modded-nanogpt and nanochat
- every layer reports its parameters and FLOPs (`size`)

The settings are `nanogpt.config.schema.ModelSettings`. Losses, optimizers, devices and sampling are
in other modules. kernels.py speeds up operations that torch computes slowly, and
inference/decoder.py generates token by token with a key/value cache.

Shapes: B batch, T tokens (at most block_size), C n_embd, H n_head, D = C / H head width, V
vocab_size.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from nanogpt.config.schema import ModelSettings
from nanogpt.model.attention import attend
from nanogpt.model.kernels import (
    drop,
    gelu,
    linear,
    rms_norm,
    rotate,
    soft_capped,
    squared_relu,
)
from nanogpt.model.layers import FLOPS_PER_ENTRY, Embedding, LayerNorm, Linear, RMSNorm, Size

# From GPT-2: https://github.com/openai/gpt-2/blob/master/src/model.py
INIT_STD = 0.02
NORM_EPSILON = 1e-5
RMS_EPSILON = 1e-6

# RoPE's slowest pair turns once in about 2 pi times this many tokens. Source:
# https://arxiv.org/abs/2104.09864
ROTARY_BASE = 10_000


def rotary_tables(block_size: int, width: int) -> Tensor:
    """Return the cosines and sines of RoPE's angles: (2, block_size, 1, 1, D / 2).

    width: D. Computed on the CPU in float64, so that all machines get the same bits after rounding.
    """
    return rotary_tables_at(torch.arange(block_size, device="cpu"), width)


def rotary_tables_at(positions: Tensor, width: int) -> Tensor:
    """Return RoPE's cosines and sines at given positions (n,), on the CPU: (2, n, 1, 1, D / 2)."""
    pairs = torch.arange(0, width, 2, device="cpu", dtype=torch.float64)
    frequencies = ROTARY_BASE ** (-pairs / width)  # (D / 2,)
    angles = torch.outer(positions.double(), frequencies)
    return torch.stack([angles.cos(), angles.sin()]).float()[:, :, None, None]


def make_norm(settings: ModelSettings) -> LayerNorm | RMSNorm:
    """Create a norm for the residual stream."""
    if settings.norm == "rmsnorm":
        return RMSNorm(RMS_EPSILON)
    return LayerNorm(settings.n_embd, NORM_EPSILON, bias=settings.bias)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which each token sees itself and the tokens before it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.n_head = settings.n_head
        self.dropout = settings.dropout
        self.qk_norm = settings.qk_norm
        # One matrix for the queries, keys and values of all heads.
        self.c_attn = Linear(settings.n_embd, 3 * settings.n_embd, bias=settings.bias)
        self.c_proj = Linear(settings.n_embd, settings.n_embd, bias=settings.bias)

    def forward(self, x: Tensor, turns: Tensor | None) -> Tensor:
        B, T, C = x.shape
        heads = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)  # (B, T, 3, H, D)
        if turns is None and not self.qk_norm:
            q, k, v = heads.permute(2, 0, 3, 1, 4)  # 3 x (B, H, T, D)
        else:
            both, values = heads.split([2, 1], dim=2)  # (B, T, 2, H, D), (B, T, 1, H, D)
            if turns is not None:
                both = rotate(both, *turns)
            if self.qk_norm:
                both = rms_norm(both, RMS_EPSILON)
            q, k = both.permute(2, 0, 3, 1, 4)  # 2 x (B, H, T, D)
            v = values.squeeze(2).transpose(1, 2)  # (B, H, T, D)
        y = attend(q, k, v, self.dropout if self.training else 0.0)  # (B, H, T, D)
        y = self.c_proj(y.transpose(1, 2).reshape(B, T, C))  # (B, T, C)
        return drop(y, self.dropout) if self.training else y

    def size(self, context_length: int) -> Size:
        """Count the matrices, and a query's products with `context_length` keys and values."""
        n_embd = self.c_proj.in_features
        products = FLOPS_PER_ENTRY * 2 * n_embd * context_length
        return self.c_attn.size() + self.c_proj.size() + Size(flops_per_token=products)


class MLP(nn.Module):
    """Two linear layers, four times as wide inside, with an activation between them."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.activation = settings.activation
        self.c_fc = Linear(settings.n_embd, 4 * settings.n_embd, bias=settings.bias)
        self.c_proj = Linear(4 * settings.n_embd, settings.n_embd, bias=settings.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activate(self.c_fc(x))  # (B, T, 4 C)
        y = self.c_proj(y)  # (B, T, C)
        return drop(y, self.dropout) if self.training else y

    def activate(self, x: Tensor) -> Tensor:
        """Apply the activation to each number in x."""
        if self.activation == "relu2":
            return squared_relu(x)
        return gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")

    def size(self) -> Size:
        """Count both matrices."""
        return self.c_fc.size() + self.c_proj.size()


class Block(nn.Module):
    """Attention and MLP, each of which reads the normalised residual stream and adds to it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.ln_1 = make_norm(settings)
        self.attn = CausalSelfAttention(settings)
        self.ln_2 = make_norm(settings)
        self.mlp = MLP(settings)

    def forward(self, x: Tensor, turns: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), turns)
        return cast(Tensor, x + self.mlp(self.ln_2(x)))

    def size(self, context_length: int) -> Size:
        """Count attention, MLP and both norms."""
        norms = self.ln_1.size() + self.ln_2.size()
        return norms + self.attn.size(context_length) + self.mlp.size()


class GPT(nn.Module):
    """The whole model: embeddings, blocks, output layer."""

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.vocab_size = vocab_size
        self.wte = Embedding(vocab_size, settings.n_embd)
        turns = None
        if settings.position == "rotary":
            turns = rotary_tables(settings.block_size, settings.n_embd // settings.n_head)
        else:
            self.wpe = Embedding(settings.block_size, settings.n_embd)
        self.turns: Tensor | None
        self.register_buffer("turns", turns, persistent=False)
        self.h = nn.ModuleList(Block(settings) for _ in range(settings.n_layer))
        self.ln_f = make_norm(settings)
        if not settings.tie_word_embeddings:
            self.lm_head = Linear(settings.n_embd, vocab_size, bias=False)
        self.apply(self._init_weights)
        if settings.init == "zero_proj":
            self._zero_projections()
        else:
            self._shrink_projections()

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INIT_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def _shrink_projections(self) -> None:
        """Divide the projections into the residual stream by the root of their number, as GPT-2."""
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=INIT_STD / math.sqrt(2 * self.settings.n_layer))

    @torch.no_grad()
    def _zero_projections(self) -> None:
        """Initialize so that each block, and an untied output layer, outputs zero.

        The other matrices get std 1 / sqrt(n_embd), which preserves the norm of a vector, and an
        untied embedding gets std 1. Source: https://github.com/karpathy/nanochat
        """
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight") or name == "lm_head.weight":
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2 and not name.startswith("w"):
                parameter.mul_(1 / (INIT_STD * math.sqrt(self.settings.n_embd)))
        if not self.settings.tie_word_embeddings:
            self.wte.weight.mul_(1 / INIT_STD)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each of `idx` (B, T)."""
        return self.head(self.hidden(idx))

    def hidden(self, idx: Tensor) -> Tensor:
        """The last block's normalised output, (B, T, C)."""
        T = idx.shape[1]
        assert self.settings.block_size >= T, "more tokens than block_size"
        x = self.wte(idx)  # (B, T, C)
        if self.settings.embedding_norm:
            x = rms_norm(x, RMS_EPSILON)
        if self.turns is None:
            turns = None
            x = x + self.wpe.weight[:T]  # (T, C)
        else:
            turns = self.turns[:, :T]  # (2, T, 1, 1, D / 2)
        if self.training:
            x = drop(x, self.settings.dropout)
        for block in self.h:
            x = block(x, turns)
        return cast(Tensor, self.ln_f(x))

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C), from the output layer."""
        return soft_capped(linear(x, self.output_matrix), self.settings.final_logit_softcapping)

    @property
    def output_matrix(self) -> Tensor:
        """The output layer's weights, (V, C)."""
        return self.wte.weight if self.settings.tie_word_embeddings else self.lm_head.weight

    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [cast(Block, block) for block in self.h]

    def size(self) -> Size:
        """Add up all layers, for a context of block_size tokens."""
        if self.settings.tie_word_embeddings:
            head = Size(flops_per_token=FLOPS_PER_ENTRY * self.wte.weight.numel())
        else:
            head = self.lm_head.size()
        total = self.wte.size() + head + self.ln_f.size()
        if self.settings.position == "learned":
            total += self.wpe.size()
        for block in self.blocks():
            total += block.size(self.settings.block_size)
        return total

    def n_parameters(self) -> int:
        """The number of learned numbers, including embeddings."""
        return self.size().n_parameters
