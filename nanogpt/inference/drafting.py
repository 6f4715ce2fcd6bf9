"""Speculative decoding: n-grams draft several tokens, and the model checks them in one pass.

A pass over a few tokens of a sequence takes hardly longer than a pass over one, because both read
all weights. With p the model's distribution for a token and q the one it was drafted from:

- keep a drafted token x with probability min(1, p(x) / q(x))
- replace the first rejected token by a draw from the positive part of p - q, and drop the rest
- if all tokens are kept, draw one more from p

This way each token has the distribution p, whatever q is. The closer q is to p, the more tokens are
kept.

Source: Y. Leviathan, M. Kalman and Y. Matias, "Fast Inference from Transformers via Speculative
Decoding", https://arxiv.org/abs/2211.17192.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from nanogpt.config.schema import SampleSettings
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError
from nanogpt.inference.choosing import GREEDY_BELOW, Uniforms, distributions
from nanogpt.inference.engine import Engine, GeneratedSequence, Step, best_of
from nanogpt.model.ensemble import Model
from nanogpt.model.kernels import log_softmax

if TYPE_CHECKING:  # only callers that mix pass n-grams, so a benchmark doesn't depend on them
    from nanogpt.ngram.mixing import Ngrams


def engine_of(
    model: Model,
    settings: SampleSettings,
    tokenizer: Tokenizer | None = None,
    ngrams: "Ngrams | None" = None,
) -> Engine:
    """Create an engine that drafts if the settings say so.

    Errors: UserError for drafts without n-grams, and the errors of Engine.
    """
    if not settings.draft:
        return Engine(model, settings, tokenizer, ngrams)
    if ngrams is None:
        raise UserError(
            "sample.draft: this model has no n-grams; set `ngram: on` in its run (or `ngram: "
            "{weight: 0}` to keep the model's own text), or set `draft: 0`"
        )
    return DraftingEngine(model, settings, tokenizer, ngrams)


class DraftingEngine(Engine):
    """An engine for one sequence, which can get several tokens per step.

    After the window is full, it draws one token per step unless `window` is half.
    """

    is_lone = True

    def __init__(
        self,
        model: Model,
        settings: SampleSettings,
        tokenizer: Tokenizer | None,
        ngrams: "Ngrams",
    ) -> None:
        """settings: as for Engine, plus draft. ngrams: used for drafts, and mixed as in Engine."""
        super().__init__(model, settings, tokenizer, ngrams)
        self.drafter = ngrams
        self.most_drafted = settings.draft
        self.capacity = 1

    def _step(self) -> list[Step]:
        (sequence,) = self.sequences
        n_drafted = self._n_to_draft(sequence)
        if n_drafted < 1:
            return super()._step()
        settings, uniforms = sequence.prompt.settings, sequence.uniforms
        drafted, q, contexts = self._draft(sequence, n_drafted)
        logits = self.decoder.read_on([sequence.tokens[-1], *drafted], sequence.n_read)
        logits = logits.cpu() if logits.device.type == "mps" else logits  # which has no float64
        logits = self.drafter.mix(logits, np.concatenate(contexts))
        p = distributions(logits, settings, _seen(sequence, drafted)).cpu().numpy()
        tokens = keep(drafted, q, p, uniforms)
        sequence.n_read += len(tokens)
        sequence.contexts = self.drafter.read(contexts[len(tokens) - 1], np.array(tokens[-1:]))
        log_probabilities = log_softmax(logits)[: len(tokens)]
        at = torch.tensor(tokens, device=logits.device)[:, None]
        scores = log_probabilities.gather(-1, at)[:, 0].tolist()
        if any(map(math.isnan, scores)):
            raise UserError(self.no_numbers())
        best = best_of(log_probabilities, sequence.prompt.n_best)
        steps = []
        for token, score, others in zip(tokens, scores, best, strict=True):
            steps.append(self._add(sequence, token, score, others))
            if steps[-1].finish:
                self.leave(sequence)
                break
        return steps

    def _n_to_draft(self, sequence: GeneratedSequence) -> int:
        """Return how many tokens to draft: they must fit the window and max_new_tokens."""
        if not sequence.n_read:
            return 0
        n_left = sequence.prompt.settings.max_new_tokens - len(sequence.new_tokens)
        return min(self.most_drafted, self.window - sequence.n_read - 1, n_left - 1)

    def _draft(
        self, sequence: GeneratedSequence, n: int
    ) -> tuple[list[int], list[NDArray[np.float64]], list[NDArray[np.int64]]]:
        """Draft n tokens; return them, each one's distribution (V,), and n + 1 contexts."""
        tokens, q = [], []
        assert sequence.contexts is not None
        contexts = [sequence.contexts]
        for _ in range(n):
            p = self.drafter.trie.distributions(contexts[-1]).p[0]
            q.append(_tempered(p, sequence.prompt.settings.temperature))
            tokens.append(_draw(q[-1], sequence.uniforms))
            contexts.append(self.drafter.read(contexts[-1], np.array(tokens[-1:])))
        return tokens, q, contexts


def keep(
    drafted: Sequence[int],
    q: Sequence[NDArray[np.float64]],
    p: NDArray[np.float64],
    uniforms: Uniforms,
) -> list[int]:
    """Return the drafted tokens to keep, and one more.

    q: the distribution that each was drafted from, (V,). p: the model's distributions for them and
    for the token after them, (n + 1, V).
    """
    for n_kept, (token, drafted_from) in enumerate(zip(drafted, q, strict=True)):
        wanted = p[n_kept]
        if uniforms.next() * drafted_from[token] >= wanted[token]:
            above = np.maximum(wanted - drafted_from, 0)
            # All zeros only if both are equal except for rounding.
            return [*drafted[:n_kept], _draw(above if above.any() else wanted, uniforms)]
    return [*drafted, _draw(p[-1], uniforms)]


def _tempered(p: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Apply a temperature to a distribution (V,)."""
    if temperature < GREEDY_BELOW:
        scaled: NDArray[np.float64] = np.zeros(len(p))
        scaled[p.argmax()] = 1
        return scaled
    scaled = (p.astype(np.float64) / p.max()) ** (1 / temperature)
    scaled /= scaled.sum()
    return scaled


def _draw(p: NDArray[np.float64], uniforms: Uniforms) -> int:
    """Draw a token in proportion to p (V,)."""
    sums = p.cumsum()
    drawn = int(np.searchsorted(sums, uniforms.next() * sums[-1], side="right"))
    return min(drawn, len(p) - 1)  # past the last token if p has NaN


def _seen(sequence: GeneratedSequence, drafted: Sequence[int]) -> torch.Tensor | None:
    """Return which tokens occur before each drafted token and after the last, (n + 1, V)."""
    if sequence.seen is None:
        return None
    seen = sequence.seen.repeat(len(drafted) + 1, 1)
    for place, token in enumerate(drafted, 1):
        seen[place:, token] = True
    return seen
