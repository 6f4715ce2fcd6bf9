"""Models for generation, with a key/value cache.

A decoder computes the same as model/gpt.py, up to rounding (tests compare the two), for a few
tokens at a time instead of whole windows:

- each weight is copied once into the fastest layout for few rows (products.py)
- one preallocated tensor holds the keys and values of all layers, with a slot per sequence
- prompts are read together, but attention is computed for each one; after that, one new token of
  each sequence is computed in a batch
- queries and keys are rotated in place, as complex numbers

Shapes: B sequences, T tokens of a prompt, S tokens with keys and values, L window, C n_embd, H
n_head, D = C / H head width, V vocab_size.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nanogpt.inference.products import Int8Product, Product
from nanogpt.model import alike
from nanogpt.model.attention import attend
from nanogpt.model.ensemble import Model, mean_log_probabilities
from nanogpt.model.gpt import GPT, RMS_EPSILON, Block, CausalSelfAttention, rotary_tables_at
from nanogpt.model.kernels import (
    rms_norm,
    rotate,
    soft_capped,
)
from nanogpt.model.layers import LayerNorm, RMSNorm

# The number of keys in a batch of sequences is rounded up to a multiple of this. So there are few
# shapes, and rows are summed in the same order.
LENGTH_STEP = 16


class Decoder(Protocol):
    """A model and its cache. Each sequence has a slot, numbered from 0."""

    @property
    def is_small(self) -> bool:
        """Whether one CPU thread is faster than several, which would wait for each other."""

    def reserve(self, n_slots: int) -> None:
        """Make room for this many sequences. Earlier slots keep their content."""

    def free(self) -> None:
        """Give up the room for sequences and its content."""

    def copy(self, source: int, target: int) -> None:
        """Copy a slot's content to another slot."""

    def read(self, tokens: Sequence[int], slot: int, n_logits: int) -> Tensor:
        """Read a sequence from its start into a slot; return logits (n_logits, V).

        The logits are those after each of the last n_logits tokens.
        """

    def read_together(self, contexts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        """Read sequences from their start into slots; return logits (B, V) after their ends."""

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Read one more token of each sequence in slots 0 to B - 1; return logits (B, V).

        positions: the number of tokens that each slot has read, (B,). When the window is full, a
        token overwrites the oldest one.
        """

    def read_on(self, tokens: Sequence[int], position: int) -> Tensor:
        """Read more tokens of the sequence in slot 0; return logits (T, V) after each of them.

        position: the number of tokens that the slot has read. All of them must fit the window.
        """


def decoder_of(model: Model, dtype: torch.dtype, window: int, is_lone: bool = False) -> Decoder:
    """Create a model's decoder. window: the number of tokens it sees, at most block_size.

    dtype: of products, keys and values. With int8, only weights and the inputs they're multiplied
    with have 8 bits; the rest is float32. is_lone: whether it's for one sequence at a time.
    """
    if isinstance(model, GPT):
        return GPTDecoder(model, dtype, window, is_lone)
    return EnsembleDecoder([GPTDecoder(gpt, dtype, window, is_lone) for gpt in model.gpts()])


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the keys and values in a decoder with this dtype."""
    return torch.float32 if dtype == torch.int8 else dtype


class GPTDecoder:
    """The decoder of a GPT."""

    def __init__(self, gpt: GPT, dtype: torch.dtype, window: int, is_lone: bool = False) -> None:
        self.window = window
        self.is_lone = is_lone
        self.in_int8 = dtype == torch.int8
        self.dtype = dtype = state_dtype(dtype)
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.settings = gpt.settings
        self.device = gpt.wte.weight.device
        self.embedding = gpt.wte.weight.detach().to(self.wide)
        rotary = gpt.settings.position == "rotary"
        self.positions = None if rotary else gpt.wpe.weight.detach().to(self.wide)
        self.as_complex = rotary and self.device.type in ("cpu", "cuda") and not alike.on()
        self.turns = self._make_turns(torch.arange(window, device="cpu")) if rotary else None
        self.is_small = self.device.type == "cpu"
        self.blocks = [_LaidOutBlock(self, block) for block in gpt.blocks()]
        self.last_norm = self.norm(gpt.ln_f)
        self.output = self.lay_out(gpt.output_matrix)
        self.cache = self._new_cache(0)

    def reserve(self, n_slots: int) -> None:
        old = self.cache
        if n_slots > old.shape[2]:
            self.cache = self._new_cache(n_slots)
            self.cache[:, :, : old.shape[2]] = old

    def free(self) -> None:
        self.cache = self._new_cache(0)

    def copy(self, source: int, target: int) -> None:
        self.cache[:, :, target] = self.cache[:, :, source]

    def read(self, tokens: Sequence[int], slot: int, n_logits: int) -> Tensor:
        return self._logits(self._read([tokens], [slot])[-n_logits:])

    def read_together(self, contexts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        x = self._read(contexts, slots)
        ends = itertools.accumulate(map(len, contexts))
        # One by one, since a product of one row may add numbers in another order than one of many.
        return torch.cat([self._logits(x[end - 1 : end]) for end in ends])

    def _read(self, contexts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        """Read sequences from their start; return the last block's output at each token, (N, C)."""
        lengths = [len(tokens) for tokens in contexts]
        assert self.window >= max(lengths), "more tokens than the window holds"
        places = torch.cat([torch.arange(T, device=self.device) for T in lengths])
        x = self._embed([token for tokens in contexts for token in tokens], places)
        turns = self._turns(places)
        kept = [
            self.cache[:, :, slot, :, :T].unbind() for slot, T in zip(slots, lengths, strict=True)
        ]  # per sequence and layer: (2, H, T, D)

        def attention(layer: int, qkv: Tensor) -> Tensor:
            each = [
                _attend_causally(part, to[layer])
                for part, to in zip(torch.split(qkv, lengths), kept, strict=True)
            ]
            return each[0] if len(each) == 1 else torch.cat(each)

        return self._blocks(x, turns, attention)

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        if len(tokens) == 1:
            return self._step_alone(tokens, positions[0])
        return self._step_together(tokens, positions)

    def _step_alone(self, tokens: Sequence[int], position: int) -> Tensor:
        """Make a step of one sequence, which needs only slices of the cache."""
        at, S = position % self.window, min(position + 1, self.window)
        x = self._embed(tokens, slice(position, position + 1))
        turns = self._turns(slice(position, position + 1))
        used = self.cache[:, :, :1, :, :S]
        new = used[:, :, 0, :, at : at + 1].unbind()  # per layer: (2, H, 1, D)
        keys, values = used[:, 0].unbind(), used[:, 1].unbind()  # (1, H, S, D)
        shape, row = (3, self.settings.n_head, 1, -1), (1, self.settings.n_embd)
        in_order = alike.on()

        def attention(layer: int, qkv: Tensor) -> Tensor:
            by_head = qkv.view(shape)
            new[layer].copy_(by_head[1:])
            q = by_head[:1]  # (1, H, 1, D)
            if in_order:
                return _attend_alike(q[:, :, 0], keys[layer], values[layer], [S])
            return F.scaled_dot_product_attention(q, keys[layer], values[layer]).view(row)

        return self._logits(self._blocks(x, turns, attention))

    def _step_together(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Make a step of several sequences, each of which sees only the used part of its slot.

        On a CPU in float32, a sequence's bits don't depend on the other sequences. With two or more
        rows, oneDNN computes each row in the same way. So do batched products if the number of keys
        is a multiple of LENGTH_STEP. Masked keys add exact zeros.
        """
        B = len(tokens)
        places = torch.tensor(positions, device=self.device)
        x = self._embed(tokens, places)
        turns = self._turns(places)
        S = _whole_steps(min(max(positions) + 1, self.window))
        last = places.clamp(max=self.window - 1)
        unseen = torch.arange(S, device=self.device) > last[:, None]
        mask = torch.zeros(B, 1, 1, S, dtype=self.dtype, device=self.device)
        mask.masked_fill_(unseen[:, None, None], -math.inf)
        on_cpu = self.device.type == "cpu"
        mask_by_head = mask.expand(-1, self.settings.n_head, -1, -1).reshape(-1, 1, S)
        lengths = [min(position + 1, self.window) for position in positions]
        rows, at = torch.arange(B, device=self.device), places % self.window
        used = self.cache[:, :, :B, :, :S]

        def attention(layer: int, qkv: Tensor) -> Tensor:
            used[layer][:, rows, :, at] = qkv[:, 1:]  # (B, 2, H, D)
            q, keys, values = qkv[:, 0], used[layer, 0], used[layer, 1]  # (B, H, D), (B, H, S, D)
            if alike.on():
                return _attend_alike(q, keys, values, lengths)
            if on_cpu:
                return _attend_by_products(q, keys, values, mask_by_head)
            y = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask)
            return y.reshape(B, -1)

        return self._logits(self._blocks(x, turns, attention))

    def read_on(self, tokens: Sequence[int], position: int) -> Tensor:
        T, S = len(tokens), position + len(tokens)
        assert self.window >= S, "more tokens than the window holds"
        x = self._embed(tokens, slice(position, S))
        turns = self._turns(slice(position, S))
        used = self.cache[:, :, :1, :, :S]
        new = used[:, :, 0, :, position:].unbind()  # per layer: (2, H, T, D)
        keys, values = used[:, 0].unbind(), used[:, 1].unbind()  # (1, H, S, D)
        mask = torch.full((T, S), -math.inf, dtype=self.dtype, device=self.device)
        mask.triu_(position + 1)
        in_order = alike.on()

        def attention(layer: int, qkv: Tensor) -> Tensor:
            new[layer].copy_(qkv[:, 1:].permute(1, 2, 0, 3))
            if in_order:
                lengths = range(position + 1, S + 1)
                each = (T, -1, -1, -1)
                return _attend_alike(
                    qkv[:, 0], keys[layer].expand(each), values[layer].expand(each), lengths
                )
            q = qkv[:, 0].transpose(0, 1)[None]  # (1, H, T, D)
            y = F.scaled_dot_product_attention(q, keys[layer], values[layer], attn_mask=mask)
            return y[0].transpose(0, 1).reshape(T, -1)

        return self._logits(self._blocks(x, turns, attention))

    def _embed(self, tokens: Sequence[int], places: slice | Tensor) -> Tensor:
        """Return the embeddings of tokens at given positions, (N, C)."""
        x = F.embedding(torch.tensor(tokens, device=self.device), self.embedding)
        if self.settings.embedding_norm:
            x = rms_norm(x, RMS_EPSILON)
        return x if self.positions is None else x + self.positions[places]

    def _blocks(
        self, x: Tensor, turns: Tensor | None, attention: Callable[[int, Tensor], Tensor]
    ) -> Tensor:
        """Run embedded tokens (N, C) through all blocks; return the output (N, C).

        attention: maps a layer's queries, keys and values, (N, 3, H, D), to its output, (N, C).
        """
        for layer, block in enumerate(self.blocks):
            qkv = block.queries_keys_values(x, turns)
            x = block.rest(x, attention(layer, qkv))
        return x

    def _logits(self, x: Tensor) -> Tensor:
        """Return logits (N, V) from the last block's output (N, C)."""
        logits = self.output(self.last_norm(x)).to(self.wide)
        return soft_capped(logits, self.settings.final_logit_softcapping)

    def lay_out(self, weight: Tensor, bias: Tensor | None = None) -> Product | Int8Product:
        """Create x @ weight.T + bias, with a copy of the weight in a layout for few rows."""
        if self.in_int8:
            product: Product | Int8Product = Int8Product(weight, bias)
        else:
            product = Product(weight, bias, self.dtype, self.is_lone)
        self.is_small &= product.is_small
        return product

    def norm(self, module: LayerNorm | RMSNorm) -> Callable[[Tensor], Tensor]:
        """Create a norm of the residual stream."""
        if isinstance(module, RMSNorm):
            return lambda x: rms_norm(x, module.epsilon)
        weight = module.weight.detach().to(self.wide)
        bias = None if module.bias is None else module.bias.detach().to(self.wide)
        shape, epsilon = weight.shape, module.eps
        if alike.on():
            return lambda x: alike.layer_norm(x, weight, bias, epsilon)
        return lambda x: torch.layer_norm(x, shape, weight, bias, epsilon)

    def _new_cache(self, n_slots: int) -> Tensor:
        """Allocate keys and values, (n_layer, 2, n_slots, H, L, D).

        They're zeros, because attention also reads masked ones.
        """
        settings = self.settings
        shape = (settings.n_layer, 2, n_slots, settings.n_head, _whole_steps(self.window))
        width = settings.n_embd // settings.n_head
        return torch.zeros(*shape, width, dtype=self.dtype, device=self.device)

    def _turns(self, places: slice | Tensor) -> Tensor | None:
        """Return the rotations of queries and keys at places, (N, ...); None if not rotary.

        The table covers the window. Later positions are unlimited, so their rotations are computed.
        """
        if self.turns is None:
            return None
        end = places.stop if isinstance(places, slice) else int(places.max()) + 1
        if end <= len(self.turns):
            return self.turns[places]
        if isinstance(places, slice):
            places = torch.arange(places.start, places.stop, device="cpu")
        return self._make_turns(places.cpu())

    def _make_turns(self, positions: Tensor) -> Tensor:
        """Compute the rotations at positions (n,).

        They are complex, (n, 1, 1, D / 2), or cosines and sines, (n, 2, ...).
        """
        width = self.settings.n_embd // self.settings.n_head
        turns = rotary_tables_at(positions, width).transpose(0, 1).to(self.device, self.wide)
        return torch.complex(turns[:, 0], turns[:, 1]) if self.as_complex else turns


class _LaidOutBlock:
    """A block of a GPT in its decoder's layout."""

    def __init__(self, decoder: GPTDecoder, block: Block) -> None:
        self.settings = decoder.settings
        self.dtype, self.wide = decoder.dtype, decoder.wide
        self.norm_1, self.norm_2 = decoder.norm(block.ln_1), decoder.norm(block.ln_2)
        weight: Tensor = block.attn.c_attn.weight
        bias: Tensor | None = block.attn.c_attn.bias
        if decoder.as_complex:
            order = _pairs_together(block.attn)
            weight, bias = weight[order], None if bias is None else bias[order]
        self.c_attn = decoder.lay_out(weight, bias)
        self.c_proj = decoder.lay_out(block.attn.c_proj.weight, block.attn.c_proj.bias)
        self.mlp = block.mlp
        self.mlp_fc = decoder.lay_out(block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        self.mlp_proj = decoder.lay_out(block.mlp.c_proj.weight, block.mlp.c_proj.bias)

    def queries_keys_values(self, x: Tensor, turns: Tensor | None) -> Tensor:
        """Return the normalised and rotated queries, keys and values of x (N, C): (N, 3, H, D)."""
        n_head = self.settings.n_head
        qkv = self.c_attn(self.norm_1(x)).view(x.shape[0], 3, n_head, -1)
        if turns is None and not self.settings.qk_norm:
            return qkv
        qkv = qkv.to(self.wide)
        both = qkv[:, :2]
        if turns is not None and turns.is_complex():
            pairs = both.view(*both.shape[:-1], -1, 2)
            torch.view_as_complex(pairs).mul_(turns)
        elif turns is not None:
            both.copy_(rotate(both, turns[:, 0], turns[:, 1]))
        if self.settings.qk_norm:
            both.copy_(rms_norm(both, RMS_EPSILON))
        return qkv.to(self.dtype)

    def rest(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output (N, C) from its input and attention's output."""
        x = self.c_proj.added(attended, x)
        return self.mlp_proj.added(self.mlp_fc.activated(self.norm_2(x), self.mlp), x)


def _pairs_together(attention: CausalSelfAttention) -> Tensor:
    """Return an order of c_attn's rows that puts the two rows of each RoPE pair next to each other.

    Queries and keys are reordered in the same way, so their products stay the same.
    """
    width = attention.c_proj.in_features // attention.n_head
    rows = torch.arange(len(attention.c_attn.weight)).view(3, attention.n_head, 2, width // 2)
    rows[:2] = rows[:2].mT.reshape(2, attention.n_head, 2, width // 2)
    return rows.flatten()


def _whole_steps(length: int) -> int:
    """Round a length up to a multiple of LENGTH_STEP."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def _attend_causally(qkv: Tensor, kept: Tensor) -> Tensor:
    """Keep the keys and values of one sequence, (2, H, T, D); return its attention (T, C).

    qkv: (T, 3, H, D).
    """
    by_head = qkv.permute(1, 2, 0, 3)  # (3, H, T, D)
    kept.copy_(by_head[1:])
    q, k, v = by_head[:, None]  # 3 x (1, H, T, D)
    if alike.on():
        y = attend(q, k, v, 0.0)
    else:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y[0].transpose(0, 1).reshape(len(qkv), -1)


def _attend_by_products(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return attention (B, C) of one query per row (B, H, D) on keys and values (B, H, S, D).

    mask: added to the scores, (B * H, 1, S).
    """
    B, H, D = q.shape
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # (B * H, S, D)
    scores = torch.baddbmm(mask, q.reshape(B * H, 1, D), keys.mT, alpha=1 / math.sqrt(D))
    return torch.bmm(F.softmax(scores, dim=-1), values).view(B, H * D)


def _attend_alike(q: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Compute attention for each sequence separately, so its bits don't depend on the others."""
    rows = []
    for row, length in enumerate(lengths):
        weights = alike.attention_weights(q[row, :, None], keys[row, :, :length])  # (H, 1, S)
        rows.append(alike.product(weights, values[row, :, :length]).flatten())
    return torch.stack(rows)


class EnsembleDecoder:
    """The decoder of an ensemble: averages the members' probabilities."""

    def __init__(self, members: Sequence[GPTDecoder]) -> None:
        self.members = members

    @property
    def is_small(self) -> bool:
        return all(member.is_small for member in self.members)

    def reserve(self, n_slots: int) -> None:
        for member in self.members:
            member.reserve(n_slots)

    def free(self) -> None:
        for member in self.members:
            member.free()

    def copy(self, source: int, target: int) -> None:
        for member in self.members:
            member.copy(source, target)

    def read(self, tokens: Sequence[int], slot: int, n_logits: int) -> Tensor:
        logits = [member.read(tokens, slot, n_logits) for member in self.members]
        return mean_log_probabilities(logits)

    def read_together(self, contexts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        return mean_log_probabilities(
            [member.read_together(contexts, slots) for member in self.members]
        )

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        return mean_log_probabilities([member.step(tokens, positions) for member in self.members])

    def read_on(self, tokens: Sequence[int], position: int) -> Tensor:
        return mean_log_probabilities([member.read_on(tokens, position) for member in self.members])
