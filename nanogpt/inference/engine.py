"""The engine of generation: sequences that join, get one token after another, and leave.

    engine = Engine(model, settings, tokenizer)
    sequence = engine.join(Prompt(tokens, settings))
    while engine.sequences:
        for step in engine.step(): ...      # one more token of each sequence
    engine.leave(sequence)                  # at any time

Each sequence has its own random numbers and sees no other's tokens: what it gets doesn't depend on
who else is there, except for rounding (docs/SAMPLING.md). With n-grams, all draws are from the
mixed distribution.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
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
from nanogpt.model.ensemble import Model
from nanogpt.model.gpt import GPT
from nanogpt.model.kernels import log_softmax

if TYPE_CHECKING:  # given by callers that mix: a benchmark doesn't depend on their code
    from nanogpt.ngram.mixing import Ngrams

# Keys and values that an engine holds at once, unless a single sequence has more; further sequences
# wait until others leave. The same on all machines, as it changes which are computed together.
CACHE_BYTES = 1 << 30
MOST_SEQUENCES = 64


class Scored(NamedTuple):
    """A token and the logarithm of its probability, before temperature and the like."""

    token: int
    log_probability: float


class Step(NamedTuple):
    """One more token of a sequence.

    log_probability: before temperature and the like. text: what it adds to the sequence's text, if
    the engine knows the tokenizer; that of a token that ends inside a character, or in what may
    become a stop string, comes later. best: the likeliest tokens, as many as were asked for.
    finish: why this is the last one, if it is.
    """

    sequence: "GeneratedSequence"
    token: int
    log_probability: float
    text: str
    best: Sequence[Scored]
    finish: Literal["length", "stop"] | None


@dataclass(frozen=True)
class Prompt:
    """What a sequence starts with, and how it goes on.

    tokens: at least one. settings: its own, of which start, num_samples, device and dtype don't
    matter here. n_best: how many of the likeliest tokens to report at each place. scored: whether
    to score the prompt's own tokens too.
    """

    tokens: Sequence[int]
    settings: SampleSettings
    n_best: int = 0
    scored: bool = False


@dataclass(eq=False)
class GeneratedSequence:
    """A sequence that an engine works on.

    tokens: the prompt's and then those that were chosen. prompt_scores: for each token of the
    prompt but the first, as far as the window holds them, its own score and then the best.
    """

    prompt: Prompt
    tokens: list[int]
    uniforms: Uniforms
    pieces: TextPieces | None
    seen: Tensor | None  # which tokens it has, (V,), for a repetition penalty
    contexts: NDArray[np.int64] | None  # of n-grams, (1, max_order)
    n_read: int = 0  # tokens whose keys and values its slot has
    prompt_scores: list[list[Scored]] = field(default_factory=list)

    @property
    def new_tokens(self) -> list[int]:
        """What was generated so far."""
        return self.tokens[len(self.prompt.tokens) :]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let torch compute as it does by itself, whatever the caller has around a call.

    That is without autocast, and with new tensors on the CPU where no device is named.
    """
    cast = [device for device in ("cpu", "cuda", "mps") if torch.is_autocast_enabled(device)]
    # A default device is a mode of torch's functions; asking for it takes a hundred times as long.
    has_mode = torch._C._is_torch_function_mode_enabled()
    if not (cast or has_mode):
        yield
        return
    with ExitStack() as stack:
        for device in cast:
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.device("cpu"))
        yield


class Engine:
    """A model with room for many sequences."""

    is_lone = False  # whether a subclass has room for one alone

    @undisturbed()
    def __init__(
        self,
        model: Model,
        settings: SampleSettings,
        tokenizer: Tokenizer | None = None,
        ngrams: "Ngrams | None" = None,
    ) -> None:
        """settings: device and dtype, resolved, and window; the model must be on that device.

        Errors: UserError for a window that slides over learned positions.
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
        self.capacity = most_sequences(_cache_bytes(model, self.window, state_dtype(self.dtype)))
        self.sequences: list[GeneratedSequence] = []  # each in the slot of its index
        self.reserved = 0

    @undisturbed()
    def join(self, prompt: Prompt) -> GeneratedSequence:
        """Add a sequence, whose first token comes with the next step."""
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
        """Make room for this many sequences at once, or for as many as may be."""
        self.reserved = max(self.reserved, min(n_sequences, self.capacity))
        self.decoder.reserve(self.reserved)

    def leave(self, sequence: GeneratedSequence) -> None:
        """Remove a sequence, whether it's finished or not."""
        slot = self.sequences.index(sequence)
        last = self.sequences.pop()
        if last is not sequence:
            with torch.inference_mode():
                self.decoder.copy(len(self.sequences), slot)
            self.sequences[slot] = last

    @undisturbed()
    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Choose the next token of each sequence; those that are finished leave."""
        if not self.sequences:
            return []
        with small_operations() if self.decoder.is_small else nullcontext():
            return self._step()

    def _step(self) -> list[Step]:
        logits = self._mix(self._next_logits())
        log_probabilities = log_softmax(logits)
        chosen = self._choose(logits)
        scores = log_probabilities.gather(-1, chosen[:, None])[:, 0].tolist()
        if any(map(math.isnan, scores)):
            raise UserError(self.no_numbers())
        best = best_of(log_probabilities, max(s.prompt.n_best for s in self.sequences))
        tokens = chosen.tolist()
        self._follow(tokens)
        steps = list(map(self._add, self.sequences, tokens, scores, best))
        for step in steps:
            if step.finish:
                self.leave(step.sequence)
        return steps

    def no_numbers(self) -> str:
        """What to say when the logits are NaN."""
        if self.dtype == torch.float16:
            return "numbers of the model are too large for float16; set dtype to float32"
        return "numbers of the model overflow; train the run again, with a lower learning_rate"

    def _next_logits(self) -> Tensor:
        """The logits (B, V) of the token after each sequence.

        Those that go on by one token are computed together. The others (new, or at the end of their
        window) are read by themselves, and several of the same tokens once.
        """
        unread = list(map(self._unread, self.sequences))
        together = None
        if any(sequence.n_read for sequence in self.sequences):
            # The slots of the others are written to as well, and read into from the start below.
            positions = [sequence.n_read for sequence in self.sequences]
            together = self.decoder.step([tokens[-1] for tokens in unread], positions)
        rows: list[Tensor] = []
        read: dict[tuple[int, ...], int] = {}  # the slot that has read these tokens
        for slot, (sequence, tokens) in enumerate(zip(self.sequences, unread, strict=True)):
            if sequence.n_read:
                assert together is not None
                rows.append(together[slot])
            elif tuple(tokens) in read and not sequence.prompt.scored:
                first = read[tuple(tokens)]
                self.decoder.copy(first, slot)
                rows.append(rows[first])
            else:
                read[tuple(tokens)] = slot
                rows.append(self._read(sequence, tokens, slot))
            sequence.n_read += len(tokens)
        logits = torch.stack(rows) if read or together is None else together
        return logits.cpu() if logits.device.type == "mps" else logits  # which has no float64

    def _unread(self, sequence: GeneratedSequence) -> list[int]:
        """The tokens that a slot must read next: its sequence's newest one, or its whole context.

        With the latter, n_read is 0. The setting `window` says what a context is where it doesn't
        fit any more.
        """
        if sequence.n_read and (sequence.n_read < self.window or self.policy == "slide"):
            return sequence.tokens[-1:]
        halved = sequence.n_read > 0 and self.policy == "half"
        sequence.n_read = 0
        return sequence.tokens[-(max(1, self.window // 2) if halved else self.window) :]

    def _read(self, sequence: GeneratedSequence, tokens: list[int], slot: int) -> Tensor:
        """Read the context of a sequence: the logits (V,) after it."""
        is_new = len(sequence.tokens) == len(sequence.prompt.tokens)
        if not (sequence.prompt.scored and is_new):
            return self.decoder.read(tokens, slot, 1)[0]
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

    def _mix(self, logits: Tensor) -> Tensor:
        """Logits, mixed with the n-grams if there are any."""
        contexts = [s.contexts for s in self.sequences if s.contexts is not None]
        return self.ngrams.mix(logits, np.concatenate(contexts)) if self.ngrams else logits

    def _follow(self, tokens: Sequence[int]) -> None:
        """Let the n-grams of each sequence follow its new token."""
        contexts = [s.contexts for s in self.sequences if s.contexts is not None]
        if self.ngrams:
            after = self.ngrams.read(np.concatenate(contexts), np.array(tokens))
            for sequence, row in zip(self.sequences, after, strict=True):
                sequence.contexts = row[None]

    def _choose(self, logits: Tensor) -> Tensor:
        """The next token of each sequence, (B,); those of equal settings are chosen together."""
        groups: dict[tuple[float, ...], list[int]] = {}
        for slot, sequence in enumerate(self.sequences):
            groups.setdefault(_choice(sequence.prompt.settings), []).append(slot)
        tokens = logits.new_empty(len(logits), dtype=torch.int64)
        for slots in groups.values():
            group = [self.sequences[slot] for slot in slots]
            marks = [sequence.seen for sequence in group if sequence.seen is not None]
            seen = torch.stack(marks).to(logits.device) if marks else None
            settings, uniforms = group[0].prompt.settings, [s.uniforms for s in group]
            if len(groups) == 1:
                return choose(logits, settings, uniforms, seen)
            tokens[slots] = choose(logits[slots], settings, uniforms, seen)
        return tokens

    def _add(
        self, sequence: GeneratedSequence, token: int, score: float, best: Sequence[Scored]
    ) -> Step:
        """Add a chosen token to its sequence."""
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
    """The steps of all these prompts, as many at once as fit."""
    waiting = deque(prompts)
    engine.reserve(len(engine.sequences) + len(waiting))
    while waiting or engine.sequences:
        while waiting and len(engine.sequences) < engine.capacity:
            engine.join(waiting.popleft())
        yield from engine.step()


def continuations(engine: Engine, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The new tokens of each prompt."""
    tokens: dict[int, list[int]] = {id(prompt): [] for prompt in prompts}
    for step in generate(engine, prompts):
        tokens[id(step.sequence.prompt)].append(step.token)
    return list(tokens.values())


class _SmallOperations:
    """How torch is set while threads are inside `small_operations`, and how it was before."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.n_inside = 0
        self.n_threads = 1
        self.enabled = True


_small = _SmallOperations()


@contextmanager
def small_operations() -> Iterator[None]:
    """Let torch compute with one thread, and without oneDNN where it isn't called by name.

    For a few numbers, GELU by oneDNN takes five times as long as torch's own. Both are set for the
    whole process, so the last of several threads restores them.
    """
    onednn = torch.backends.mkldnn
    with _small.lock:
        if not _small.n_inside:
            _small.n_threads, _small.enabled = torch.get_num_threads(), bool(onednn.enabled)
        _small.n_inside += 1
        torch.set_num_threads(1)
        onednn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        with _small.lock:
            _small.n_inside -= 1
            torch.set_num_threads(_small.n_threads)
            if not _small.n_inside:
                onednn.enabled = _small.enabled  # type: ignore[assignment]


def _choice(settings: SampleSettings) -> tuple[float, ...]:
    """The settings that decide how a token is chosen."""
    truncation = (settings.top_k, settings.top_p, settings.min_p)
    return (settings.temperature, settings.repetition_penalty, *truncation)


def best_of(log_probabilities: Tensor, n: int) -> list[list[Scored]]:
    """The n likeliest tokens of each row of (N, V), the likeliest first."""
    if n == 0:
        return [[] for _ in log_probabilities]
    values, tokens = log_probabilities.topk(min(n, log_probabilities.shape[1]))
    rows = zip(tokens.tolist(), values.tolist(), strict=True)
    return [list(map(Scored, *row)) for row in rows]


def most_sequences(cache_bytes: int) -> int:
    """How many sequences are held at once, by the bytes of one's keys and values."""
    return max(1, min(MOST_SEQUENCES, CACHE_BYTES // cache_bytes))


def _cache_bytes(model: Model, window: int, dtype: torch.dtype) -> int:
    """The size of a sequence's keys and values."""
    gpts = [model] if isinstance(model, GPT) else model.gpts()
    per_token = sum(2 * gpt.settings.n_layer * gpt.settings.n_embd for gpt in gpts)
    return per_token * window * dtype.itemsize
