"""The generation engine: sequences join, get one token after another, and leave.

    engine = Engine(model, settings, tokenizer)
    sequence = engine.join(Prompt(tokens, settings))
    while engine.sequences:
        for step in engine.step(): ...      # one more token of each sequence
    engine.leave(sequence)                  # possible at any time

Each sequence has its own random numbers and never sees other sequences' tokens. So its result
doesn't depend on them, except for rounding (docs/SAMPLING.md). With n-grams, tokens are drawn from
the mixed distribution.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanogpt.config.resolving import check_window
from nanogpt.config.schema import SampleSettings
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.devices import torch_dtype
from nanogpt.errors import UserError
from nanogpt.inference.choosing import Uniforms, choose
from nanogpt.inference.decoder import decoder_of, state_dtype
from nanogpt.inference.stopping import TextPieces
from nanogpt.inference.torch_state import small_operations, undisturbed
from nanogpt.model.ensemble import Model
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import log_softmax

if TYPE_CHECKING:  # only callers that mix pass n-grams, so a benchmark doesn't depend on them
    from nanogpt.ngram.mixing import Ngrams

# The most memory for keys and values, unless a single sequence needs more. Further sequences wait
# until others leave. The limit is the same on all machines, because it decides which sequences are
# computed together.
CACHE_BYTES = 1 << 30
MOST_SEQUENCES = 64
# Steps after which a sequence that waits to be read again goes before new ones.
PATIENCE = 8
# Tokens of several contexts to read in one pass. Larger passes aren't faster.
READ_TOGETHER = 256


class Scored(NamedTuple):
    """A token and its log probability before temperature and other sampling settings."""

    token: int
    log_probability: float


class Step(NamedTuple):
    """One more token of a sequence.

    log_probability: before temperature and other sampling settings. text: the text to append, if
    the engine has a tokenizer; it's delayed while a character or a possible stop string is
    incomplete. best: the likeliest tokens, n_best of them. finish: the reason if this is the last
    token, else None.
    """

    sequence: "GeneratedSequence"
    token: int
    log_probability: float
    text: str
    best: Sequence[Scored]
    finish: Literal["length", "stop"] | None


@dataclass(frozen=True)
class Prompt:
    """The start of a sequence, and the settings to continue it.

    tokens: at least one. settings: this sequence's; start, num_samples, device and dtype are
    ignored here. n_best: how many of the likeliest tokens to report at each position. scored:
    whether to score the prompt's own tokens too.
    """

    tokens: Sequence[int]
    settings: SampleSettings
    n_best: int = 0
    scored: bool = False


@dataclass(eq=False)
class GeneratedSequence:
    """A sequence in an engine.

    tokens: the prompt's tokens, then the generated ones. prompt_scores: for each prompt token in
    the window except the first, its own score followed by the best ones.
    """

    prompt: Prompt
    tokens: list[int]
    uniforms: Uniforms
    pieces: TextPieces | None
    seen: Tensor | None  # which tokens it contains, (V,), for the repetition penalty
    contexts: NDArray[np.int64] | None  # for n-grams, (1, max_order)
    n_read: int = 0  # the number of tokens whose keys and values are in its slot
    n_waited: int = 0  # the number of steps for which it has waited to be read
    prompt_scores: list[list[Scored]] = field(default_factory=list)

    @property
    def new_tokens(self) -> list[int]:
        """The tokens generated so far."""
        return self.tokens[len(self.prompt.tokens) :]


class Engine:
    """A model that generates many sequences together."""

    is_lone = False  # whether the engine (a subclass) has room for only one sequence

    @undisturbed()
    def __init__(
        self,
        model: Model,
        settings: SampleSettings,
        tokenizer: Tokenizer | None = None,
        ngrams: "Ngrams | None" = None,
        most: int | None = None,
        most_read: int | None = None,
    ) -> None:
        """settings: with device and dtype resolved; the model must be on that device.

        most: the number of sequences to compute together, if their keys and values fit in
        CACHE_BYTES; None: MOST_SEQUENCES. most_read: stop reading whole contexts in a step after
        this many tokens, so that a step is short for the others; None: read all.

        Errors: UserError for a sliding window with learned positions.
        """
        for gpt in [model] if isinstance(model, GPT) else model.gpts():
            check_window(gpt.settings, settings)
        self.window = model.settings.block_size
        self.policy = settings.window
        self.vocab_size = model.vocab_size
        self.ngrams = ngrams
        self.to_bytes = cache(lambda token: tokenizer.to_bytes([token])) if tokenizer else None
        with torch.inference_mode():
            self.dtype = torch_dtype(settings.dtype)
            self.decoder = decoder_of(model, self.dtype, self.window, self.is_lone)
        self.cache_bytes = _cache_bytes(model, self.window, state_dtype(self.dtype))
        self.capacity = most_sequences(self.cache_bytes, most)
        self.most_read = most_read
        self.sequences: list[GeneratedSequence] = []  # the index is the decoder's slot
        self.reserved = 0

    @undisturbed()
    def join(self, prompt: Prompt) -> GeneratedSequence:
        """Add a sequence. The next step gives its first token."""
        assert len(prompt.tokens)
        assert len(self.sequences) < self.capacity
        settings = prompt.settings
        seen = None
        if settings.repetition_penalty != 1:
            seen = torch.zeros(self.vocab_size, dtype=torch.bool)
            seen[list(prompt.tokens)] = True
        contexts = self.ngrams.contexts(prompt.tokens) if self.ngrams else None
        pieces = TextPieces(self.to_bytes, settings.stop) if self.to_bytes else None
        sequence = GeneratedSequence(
            prompt, list(prompt.tokens), Uniforms(settings.seed), pieces, seen, contexts
        )
        if len(self.sequences) == self.reserved:
            self.reserve(2 * self.reserved or 1)
        self.sequences.append(sequence)
        return sequence

    @undisturbed()
    @torch.inference_mode()
    def reserve(self, n_sequences: int) -> None:
        """Make room for this many sequences, or for the most that are allowed."""
        self.reserved = max(self.reserved, min(n_sequences, self.capacity))
        self.decoder.reserve(self.reserved)

    @undisturbed()
    @torch.inference_mode()
    def free(self) -> None:
        """Give up the room for sequences. It must have no sequences."""
        assert not self.sequences
        self.reserved = 0
        self.decoder.free()

    def leave(self, sequence: GeneratedSequence) -> None:
        """Remove a sequence, finished or not."""
        slot = self.sequences.index(sequence)
        last = self.sequences.pop()
        if last is not sequence:
            with torch.inference_mode():
                self.decoder.copy(len(self.sequences), slot)
            self.sequences[slot] = last

    @undisturbed()
    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Choose the next token of each sequence, then remove finished sequences.

        With `most_read`, sequences whose context must be read may wait for a later step.
        """
        if not self.sequences:
            return []
        with small_operations() if self.decoder.is_small else nullcontext():
            return self._step()

    def _step(self) -> list[Step]:
        group = self._those_in_turn()
        logits = self._mix(self._next_logits(group), group)
        log_probabilities = log_softmax(logits)
        chosen = self._choose(logits, group)
        scores = log_probabilities.gather(-1, chosen[:, None])[:, 0].tolist()
        if any(map(math.isnan, scores)):
            raise UserError(self.no_numbers())
        best = best_of(log_probabilities, max(s.prompt.n_best for s in group))
        tokens = chosen.tolist()
        self._follow(tokens, group)
        steps = list(map(self._add, group, tokens, scores, best))
        for step in steps:
            if step.finish:
                self.leave(step.sequence)
        return steps

    def no_numbers(self) -> str:
        """Return the error message for logits that are NaN."""
        if self.dtype == torch.float16:
            return "the model's values overflow float16; set `dtype: float32`"
        return "the model's values overflow; train the run again with a lower `learning_rate`"

    def _those_in_turn(self) -> list[GeneratedSequence]:
        """Return the sequences that get a token in this step, from slot 0 on.

        New ones are read before those with a full window, unless these have waited for long. Those
        that wait are read before others.
        """
        if self.most_read is None:
            return self.sequences
        to_read = [s for s in self.sequences if self._must_read(s)]
        to_read.sort(
            key=lambda s: (
                s.n_waited <= PATIENCE and len(s.tokens) > len(s.prompt.tokens),
                -s.n_waited,
            )
        )
        left, n_in_turn = self.most_read, 0
        for sequence in to_read:
            left -= len(self._context(sequence))
            if left < 0 and n_in_turn:
                break
            n_in_turn += 1
        waiting = to_read[n_in_turn:]
        for sequence in waiting:
            sequence.n_waited += 1
        self._move_to_the_end(waiting)
        return self.sequences[: len(self.sequences) - len(waiting)]

    def _move_to_the_end(self, waiting: Sequence[GeneratedSequence]) -> None:
        """Give sequences that must be read, and so need no content, the last slots."""
        first = len(self.sequences) - len(waiting)
        last = {id(sequence) for sequence in waiting}
        targets = [slot for slot in range(first) if id(self.sequences[slot]) in last]
        sources = [
            slot
            for slot in range(first, len(self.sequences))
            if id(self.sequences[slot]) not in last
        ]
        for source, target in zip(sources, targets, strict=True):
            self.decoder.copy(source, target)
            both = self.sequences[source], self.sequences[target]
            self.sequences[target], self.sequences[source] = both

    def _next_logits(self, group: Sequence[GeneratedSequence]) -> Tensor:
        """Return the logits (B, V) for the next token of the sequences in the first B slots.

        Sequences with one new token are computed together. The others (new, or with a full window)
        are read from the start.
        """
        unread = list(map(self._unread, group))
        logits = None
        if any(sequence.n_read for sequence in group):
            # This also writes to the slots of the others, which are read from the start below.
            positions = [sequence.n_read for sequence in group]
            logits = self.decoder.step([tokens[-1] for tokens in unread], positions)
        new = {slot: unread[slot] for slot, sequence in enumerate(group) if not sequence.n_read}
        if new:
            rows = {} if logits is None else dict(enumerate(logits))
            rows |= self._read(new)
            logits = torch.stack([rows[slot] for slot in range(len(group))])
        for sequence, tokens in zip(group, unread, strict=True):
            sequence.n_read += len(tokens)
        assert logits is not None
        return logits.cpu() if logits.device.type == "mps" else logits  # which has no float64

    def _unread(self, sequence: GeneratedSequence) -> list[int]:
        """Return the tokens that a slot must read next: the newest one, or the whole context.

        For a whole context, this sets n_read to 0.
        """
        if not self._must_read(sequence):
            return sequence.tokens[-1:]
        context = self._context(sequence)
        sequence.n_read = sequence.n_waited = 0
        return context

    def _must_read(self, sequence: GeneratedSequence) -> bool:
        """Whether a sequence is new, or its window is full."""
        return not sequence.n_read or (sequence.n_read >= self.window and self.policy != "slide")

    def _context(self, sequence: GeneratedSequence) -> list[int]:
        """Return what must be read. The setting `window` decides what to keep of a full window."""
        halved = sequence.n_read > 0 and self.policy == "half"
        return sequence.tokens[-(max(1, self.window // 2) if halved else self.window) :]

    def _read(self, contexts: Mapping[int, list[int]]) -> dict[int, Tensor]:
        """Read the context of each slot; return the logits (V,) after it.

        Equal contexts are read once. Short ones are read together, except single tokens, because a
        product of one row may add numbers in another order.
        """
        rows = {}
        slots_of: dict[tuple[int, ...], list[int]] = {}
        for slot, tokens in contexts.items():
            sequence = self.sequences[slot]
            if sequence.prompt.scored and len(sequence.tokens) == len(sequence.prompt.tokens):
                rows[slot] = self._read_scored(sequence, tokens, slot)
            else:
                slots_of.setdefault(tuple(tokens), []).append(slot)
        for batch in _batches(slots_of):
            firsts = [slots_of[tokens][0] for tokens in batch]
            rows |= zip(firsts, self.decoder.read_together(batch, firsts), strict=True)
        for first, *others in slots_of.values():
            for slot in others:
                self.decoder.copy(first, slot)
                rows[slot] = rows[first]
        return rows

    def _read_scored(self, sequence: GeneratedSequence, tokens: list[int], slot: int) -> Tensor:
        """Read a new sequence's context and score it; return the logits (V,) after it."""
        logits = self.decoder.read(tokens, slot, len(tokens))
        before = logits[:-1]
        if self.ngrams and len(before):
            skipped = len(sequence.tokens) - len(tokens)
            ends = range(skipped + 1, len(sequence.tokens))
            contexts = [self.ngrams.contexts(sequence.tokens[:end]) for end in ends]
            before = self.ngrams.mix(before, np.concatenate(contexts))
        log_probabilities = log_softmax(before)
        own = log_probabilities.gather(-1, torch.tensor(tokens[1:], device=before.device)[:, None])
        best = best_of(log_probabilities, sequence.prompt.n_best)
        sequence.prompt_scores = [
            [Scored(token, score), *others]
            for token, score, others in zip(tokens[1:], own[:, 0].tolist(), best, strict=True)
        ]
        return logits[-1]

    def _mix(self, logits: Tensor, group: Sequence[GeneratedSequence]) -> Tensor:
        """Mix logits with the n-grams, if there are any."""
        contexts = [s.contexts for s in group if s.contexts is not None]
        return self.ngrams.mix(logits, np.concatenate(contexts)) if self.ngrams else logits

    def _follow(self, tokens: Sequence[int], group: Sequence[GeneratedSequence]) -> None:
        """Add each sequence's new token to its n-gram context."""
        contexts = [s.contexts for s in group if s.contexts is not None]
        if self.ngrams:
            after = self.ngrams.read(np.concatenate(contexts), np.array(tokens))
            for sequence, row in zip(group, after, strict=True):
                sequence.contexts = row[None]

    def _choose(self, logits: Tensor, group: Sequence[GeneratedSequence]) -> Tensor:
        """Choose the next token of each sequence, (B,). Equal settings are handled together."""
        groups: dict[tuple[float, ...], list[int]] = {}
        for slot, sequence in enumerate(group):
            groups.setdefault(_choice(sequence.prompt.settings), []).append(slot)
        tokens = logits.new_empty(len(logits), dtype=torch.int64)
        for slots in groups.values():
            alike = [group[slot] for slot in slots]
            marks = [sequence.seen for sequence in alike if sequence.seen is not None]
            seen = torch.stack(marks).to(logits.device) if marks else None
            settings, uniforms = alike[0].prompt.settings, [s.uniforms for s in alike]
            if len(groups) == 1:
                return choose(logits, settings, uniforms, seen)
            tokens[slots] = choose(logits[slots], settings, uniforms, seen)
        return tokens

    def _add(
        self, sequence: GeneratedSequence, token: int, score: float, best: Sequence[Scored]
    ) -> Step:
        """Append a chosen token to its sequence."""
        sequence.tokens.append(token)
        if sequence.seen is not None:
            sequence.seen[token] = True
        pieces = sequence.pieces
        text = pieces.add(token) if pieces else ""
        finish: Literal["length", "stop"] | None = None
        n_new = len(sequence.tokens) - len(sequence.prompt.tokens)
        if n_new == sequence.prompt.settings.max_new_tokens:
            finish = "length"
            text += pieces.rest() if pieces and not pieces.stopped else ""
        if pieces and pieces.stopped:
            finish = "stop"
        return Step(sequence, token, score, text, best[: sequence.prompt.n_best], finish)


def generate(engine: Engine, prompts: Iterable[Prompt]) -> Iterator[Step]:
    """Yield the steps of all prompts, with as many sequences at a time as fit."""
    waiting = deque(prompts)
    engine.reserve(len(engine.sequences) + len(waiting))
    while waiting or engine.sequences:
        while waiting and len(engine.sequences) < engine.capacity:
            engine.join(waiting.popleft())
        yield from engine.step()


def continuations(engine: Engine, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the new tokens of each prompt."""
    tokens: dict[int, list[int]] = {id(prompt): [] for prompt in prompts}
    for step in generate(engine, prompts):
        tokens[id(step.sequence.prompt)].append(step.token)
    return list(tokens.values())


def _batches(contexts: Iterable[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Group contexts to read together: single tokens alone, others up to READ_TOGETHER tokens."""
    batch: list[tuple[int, ...]] = []
    for tokens in contexts:
        if len(tokens) == 1:
            yield [tokens]
            continue
        if batch and len(tokens) + sum(map(len, batch)) > READ_TOGETHER:
            yield batch
            batch = []
        batch.append(tokens)
    if batch:
        yield batch


def _choice(settings: SampleSettings) -> tuple[float, ...]:
    """Return the settings that affect how a token is chosen."""
    truncation = (settings.top_k, settings.top_p, settings.min_p)
    return (settings.temperature, settings.repetition_penalty, *truncation)


def best_of(log_probabilities: Tensor, n: int) -> list[list[Scored]]:
    """Return the n likeliest tokens of each row (N, V), the likeliest first."""
    if n == 0:
        return [[] for _ in log_probabilities]
    values, tokens = log_probabilities.topk(min(n, log_probabilities.shape[1]))
    rows = zip(tokens.tolist(), values.tolist(), strict=True)
    return [list(map(Scored, *row)) for row in rows]


def most_sequences(cache_bytes: int, most: int | None = None) -> int:
    """Return how many sequences fit, up to `most`, or MOST_SEQUENCES if it's None.

    cache_bytes: the size of one sequence's keys and values.
    """
    return max(1, min(MOST_SEQUENCES if most is None else most, CACHE_BYTES // cache_bytes))


def _cache_bytes(model: Model, window: int, dtype: torch.dtype) -> int:
    """Return the size of one sequence's keys and values in bytes."""
    gpts = [model] if isinstance(model, GPT) else model.gpts()
    per_token = sum(2 * gpt.settings.n_layer * gpt.settings.n_embd for gpt in gpts)
    return per_token * window * dtype.itemsize
