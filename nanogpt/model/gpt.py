"""The GPT: GPT-2's architecture, and nothing else.

Tokens in, logits out. Losses, optimizers, devices and sampling are left to others.

Shapes: B batch, T tokens (at most block_size), C n_embd, H n_head, D = C / H head width,
V vocab_size.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanogpt.config.schema import ModelSettings

# GPT-2's: https://github.com/openai/gpt-2/blob/master/src/model.py
INIT_STD = 0.02
NORM_EPSILON = 1e-5

# RoPE's slowest pair turns once in about 2 pi times as many tokens: https://arxiv.org/abs/2104.09864
ROTARY_BASE = 10_000

MATMUL_ATTENTION_MAX_TOKENS = 512

# An operator for torch's own compiler; where a version or build lacks it, F.linear serves.
ONEDNN_LINEAR = hasattr(torch.ops.mkldnn, "_linear_pointwise")


@dataclass
class KVCache:
    """Keys and values of the tokens that a model has read, so that it need not read them again.

    keys, values: one tensor a layer, each (B, H, block_size, D), filled up to `length` tokens.
    """

    keys: list[Tensor]
    values: list[Tensor]
    length: int = 0


class OneDnnLinear(torch.autograd.Function):
    """x @ weight.T + bias by oneDNN, for float32 on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # (B * T, out)
        of_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        of_weight = _onednn(rows.t(), x.flatten(0, -2).t(), None)
        return _onednn(gradient, weight.t(), None), of_weight, of_bias


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out).

    In float32 on a CPU torch would take MKL, which has half oneDNN's speed on AMD's processors
    (docs/BENCHMARKS.md).
    """
    float32_on_cpu = (
        x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    )
    if not float32_on_cpu or not ONEDNN_LINEAR or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    return cast(Tensor, OneDnnLinear.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class Linear(nn.Linear):
    """torch's linear layer, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal scaled dot-product attention of queries (B, H, T, D) on keys and values (B, H, S, D).

    T = S, or T = 1: a single new token, which may see all of S.
    """
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or S > MATMUL_ATTENTION_MAX_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=T > 1)
    # On a CPU, PyTorch's fused bfloat16 kernel takes 2 to 6 times as long as plain matrix products,
    # until the (T, S) scores outgrow the caches (docs/BENCHMARKS.md).
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)
    if T > 1:
        scores = scores.masked_fill(torch.ones(T, S, dtype=torch.bool).triu(1), -math.inf)
    weights = F.dropout(F.softmax(scores, dim=-1), dropout)
    return weights.to(v.dtype) @ v


def rotary_angles(block_size: int, width: int) -> Tensor:
    """How far RoPE turns each pair of a head at each position: (block_size, width / 2)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, width, 2) / width)
    return torch.outer(torch.arange(block_size), frequencies)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + D/2]) of queries or keys (B, H, T, D) by angles (T, D/2).

    The product of a query and a key then depends on how far apart they are, not on where.
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a token sees itself and what stands before it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.n_head = settings.n_head
        self.dropout = settings.dropout
        # Queries, keys and values of all heads from one matrix.
        self.c_attn = Linear(settings.n_embd, 3 * settings.n_embd, bias=settings.bias)
        self.c_proj = Linear(settings.n_embd, settings.n_embd, bias=settings.bias)

    def forward(
        self, x: Tensor, angles: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        B, T, C = x.shape
        heads = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # 3 x (B, H, T, D)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        if cache is not None:
            k, v = self._remember(k, v, cache, layer)
        y = attend(q, k, v, self.dropout if self.training else 0.0)  # (B, H, T, D)
        y = self.c_proj(y.transpose(1, 2).reshape(B, T, C))
        return F.dropout(y, self.dropout, self.training)

    def _remember(self, k: Tensor, v: Tensor, cache: KVCache, layer: int) -> tuple[Tensor, Tensor]:
        start, end = cache.length, cache.length + k.shape[2]
        assert start == 0 or end == start + 1, "a cache takes a prompt, then one token at a time"
        cache.keys[layer][:, :, start:end] = k
        cache.values[layer][:, :, start:end] = v
        return cache.keys[layer][:, :, :end], cache.values[layer][:, :, :end]


class MLP(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.gelu = "tanh" if settings.activation == "gelu_tanh" else "none"
        self.c_fc = Linear(settings.n_embd, 4 * settings.n_embd, bias=settings.bias)
        self.c_proj = Linear(4 * settings.n_embd, settings.n_embd, bias=settings.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c_proj(F.gelu(self.c_fc(x), approximate=self.gelu))
        return F.dropout(y, self.dropout, self.training)


class Block(nn.Module):
    """Attention and MLP, each reading a normalised residual stream and adding to it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(settings.n_embd, NORM_EPSILON, bias=settings.bias)
        self.attn = CausalSelfAttention(settings)
        self.ln_2 = nn.LayerNorm(settings.n_embd, NORM_EPSILON, bias=settings.bias)
        self.mlp = MLP(settings)

    def forward(
        self, x: Tensor, angles: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), angles, cache, layer)
        return cast(Tensor, x + self.mlp(self.ln_2(x)))


class GPT(nn.Module):
    """A decoder-only transformer with tied input and output embeddings.

    The parameters bear GPT-2's names (`wte`, `wpe`, `h.0.attn.c_attn`, ..., `ln_f`).
    """

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.vocab_size = vocab_size
        self.wte = nn.Embedding(vocab_size, settings.n_embd)
        angles = None
        if settings.position == "rotary":
            angles = rotary_angles(settings.block_size, settings.n_embd // settings.n_head)
        else:
            self.wpe = nn.Embedding(settings.block_size, settings.n_embd)
        self.angles: Tensor | None
        self.register_buffer("angles", angles, persistent=False)
        self.h = nn.ModuleList(Block(settings) for _ in range(settings.n_layer))
        self.ln_f = nn.LayerNorm(settings.n_embd, NORM_EPSILON, bias=settings.bias)
        self.apply(self._init_weights)
        # GPT-2 scales the projections into the residual stream by 1/sqrt(how many there are).
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=INIT_STD / math.sqrt(2 * settings.n_layer))

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INIT_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `idx` (B, T).

        With a `cache`, `idx` is what comes after the cached tokens, and is added to them.
        """
        return self.head(self.hidden(idx, cache))

    def hidden(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """The last block's normalised output, (B, T, C)."""
        start = 0 if cache is None else cache.length
        end = start + idx.shape[1]
        assert end <= self.settings.block_size, "more tokens than block_size"
        x = self.wte(idx)  # (B, T, C)
        if self.angles is None:
            angles = None
            x = x + self.wpe.weight[start:end]  # (T, C)
        else:
            angles = self.angles[start:end]  # (T, D / 2)
        x = F.dropout(x, self.settings.dropout, self.training)
        for layer, block in enumerate(self.h):
            x = block(x, angles, cache, layer)
        if cache is not None:
            cache.length = end
        return cast(Tensor, self.ln_f(x))

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C), through the tied token embedding."""
        return linear(x, self.wte.weight)

    def new_cache(self, batch_size: int, dtype: torch.dtype) -> KVCache:
        """An empty cache for `batch_size` sequences."""
        settings = self.settings
        head_width = settings.n_embd // settings.n_head
        shape = (batch_size, settings.n_head, settings.block_size, head_width)

        def buffers() -> list[Tensor]:
            device = self.wte.weight.device
            return [torch.zeros(shape, device=device, dtype=dtype) for _ in self.h]

        return KVCache(keys=buffers(), values=buffers())

    def n_parameters(self) -> int:
        """How many numbers are learned, embeddings included."""
        return sum(parameter.numel() for parameter in self.parameters())
