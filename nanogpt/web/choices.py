"""The choices of a completion: from an engine's steps to the JSON of OpenAI's API.

It's written as text, since a server that encodes an object for each token spends more time on that
than on the token.
"""

import codecs
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote

from nanogpt.inference.engine import GeneratedSequence, Scored, Step
from nanogpt.web.models import LoadedModel

# What OpenAI writes for a probability of 0, whose logarithm JSON can't write.
LEAST_LOGPROB = -9999.0


class LogProbs:
    """Collects the log probabilities of tokens, as JSON.

    Offsets count characters of the choice's text. A token that ends inside a character has the
    offset of that character.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._names = model.names.as_json
        self._to_bytes = model.tokenizer.to_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0
        self._prompt: EchoedPrompt | None = None  # to take before the tokens
        self._clear()

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._scores: list[str] = []
        self._best: list[str] = []
        self._offsets: list[str] = []

    def place(self, token: int) -> None:
        """Add a token's offset."""
        self._offsets.append(str(self._offset))
        self._offset += len(self._decoder.decode(self._to_bytes([token])))

    def score(self, token: int, score: float | None, best: Sequence[Scored]) -> None:
        """Add a token's name and scores. score: None if it isn't known, as for the first one."""
        names = self._names
        self._tokens.append(names[token])
        if score is None:
            self._scores.append("null")
            self._best.append("null")
            return
        likely = {names[scored.token]: scored.log_probability for scored in best}
        likely[names[token]] = score
        self._scores.append(_number(score))
        inner = ",".join([f"{name}:{_number(value)}" for name, value in likely.items()])
        self._best.append(f"{{{inner}}}")

    def add(self, token: int, score: float, best: Sequence[Scored]) -> None:
        """Add a token after those before it."""
        self.place(token)
        self.score(token, score, best)

    def follow(self, prompt: "EchoedPrompt") -> None:
        """Begin with a prompt, whose log probabilities are written until the next `take`."""
        assert prompt.log_probs
        self._prompt = prompt
        self._offset = prompt.log_probs._offset
        self._decoder.setstate(prompt.log_probs._decoder.getstate())

    def columns(self) -> list[str]:
        """Return the tokens, scores, alternatives and offsets, each as the inside of a list."""
        return list(map(",".join, (self._tokens, self._scores, self._best, self._offsets)))

    def take(self) -> str:
        """Return the object of the tokens since the last call."""
        columns = self.columns()
        self._clear()
        if self._prompt:
            both = zip(self._prompt.columns, columns, strict=True)
            columns = [",".join(filter(None, parts)) for parts in both]
            self._prompt = None
        tokens, scores, best, offsets = columns
        return (
            f'{{"tokens":[{tokens}],"token_logprobs":[{scores}],"top_logprobs":[{best}],'
            f'"text_offset":[{offsets}]}}'
        )


class EchoedPrompt:
    """A prompt that choices begin with: its text and, if it's scored, its log probabilities.

    All choices of a prompt share it. To create it and to `write` take long for a long prompt, so
    both are done in other threads than the event loop's.
    """

    def __init__(self, tokens: Sequence[int], model: LoadedModel, *, is_scored: bool) -> None:
        self.tokens = tokens
        self.text = model.tokenizer.decode(tokens)
        # As in GeneratedSequence, without those of the first tokens; None until they're known.
        self.scores: Sequence[Sequence[Scored]] | None = None
        self.columns: list[str] = []  # empty until they're written
        self.log_probs = LogProbs(model) if is_scored else None
        if self.log_probs:
            for token in tokens:
                self.log_probs.place(token)

    @property
    def is_unwritten(self) -> bool:
        """Whether the log probabilities are known, but not written yet."""
        return self.scores is not None and not self.columns

    def write(self) -> None:
        """Write the log probabilities as JSON."""
        assert self.log_probs
        assert self.scores is not None
        n_unscored = len(self.tokens) - len(self.scores)
        for token in self.tokens[:n_unscored]:
            self.log_probs.score(token, None, ())
        for token, (own, *best) in zip(self.tokens[n_unscored:], self.scores, strict=True):
            self.log_probs.score(token, own.log_probability, best)
        self.columns = self.log_probs.columns()


class Choice:
    """One choice of a completion, as JSON.

    `take` returns what came since its last call: a part of the text in a stream, or all of it.
    """

    def __init__(
        self,
        index: int,
        model: LoadedModel,
        *,
        prompt: EchoedPrompt | None,
        has_scores: bool,
        is_empty: bool,
    ) -> None:
        """prompt: to begin with. has_scores: with log probabilities. is_empty: leave the tokens
        out, because the client wants none.
        """
        self._tail = f',"index":{index},"logprobs":'
        self._prompt = prompt
        self._is_empty = is_empty
        self._scores = LogProbs(model) if has_scores else None
        self._texts: list[str] = []
        self._has_begun = self._has_news = False
        self.n_tokens = 0
        self.finish: str | None = None

    def add(self, step: Step) -> None:
        """Add a token."""
        if not self._has_begun:
            self._begin(step.sequence)
        finish = step.finish
        if self._is_empty:
            self.finish = finish and "length"
        else:
            self.finish = finish
            self.n_tokens += 1
            self._texts.append(step.text)
            if self._scores:
                self._scores.add(step.token, step.log_probability, step.best)
        if step.text or self._scores or finish:
            self._has_news = True

    def take(self) -> str | None:
        """Return what's new; None if there's nothing to show. Its prompt must be written."""
        if not self._has_news:
            return None
        self._has_news = False
        texts = self._texts
        text = texts[0] if len(texts) == 1 else "".join(texts)
        texts.clear()
        scores = self._scores.take() if self._scores else "null"
        finish = f'"{self.finish}"' if self.finish else "null"
        return f'{{"text":{quote(text)}{self._tail}{scores},"finish_reason":{finish}}}'

    def _begin(self, sequence: GeneratedSequence) -> None:
        """Add the prompt's text and log probabilities, if the client wants them."""
        self._has_begun = True
        if not self._prompt:
            return
        self._texts.append(self._prompt.text)
        if self._scores:
            self._scores.follow(self._prompt)
            if self._prompt.scores is None:
                self._prompt.scores = sequence.prompt_scores


def _number(value: float) -> str:
    return f"{max(value, LEAST_LOGPROB):.6f}"
