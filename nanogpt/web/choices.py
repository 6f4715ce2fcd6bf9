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
    """Collects the log probabilities of a choice's tokens, as JSON.

    Offsets count characters of the choice's text. A token that ends inside a character has the
    offset of that character.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._names = model.names.as_json
        self._to_bytes = model.tokenizer.to_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0
        self._clear()

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._scores: list[str] = []
        self._best: list[str] = []
        self._offsets: list[str] = []

    def add(self, token: int, score: float | None, best: Sequence[Scored]) -> None:
        """Add a token. score: None if it isn't known, as for the first one."""
        names = self._names
        self._tokens.append(names[token])
        self._offsets.append(str(self._offset))
        self._offset += len(self._decoder.decode(self._to_bytes([token])))
        if score is None:
            self._scores.append("null")
            self._best.append("null")
            return
        likely = {names[scored.token]: scored.log_probability for scored in best}
        likely[names[token]] = score
        self._scores.append(_number(score))
        inner = ",".join([f"{name}:{_number(value)}" for name, value in likely.items()])
        self._best.append(f"{{{inner}}}")

    def take(self) -> str:
        """Return the object of the tokens since the last call."""
        parts = (self._tokens, self._scores, self._best, self._offsets)
        tokens, scores, best, offsets = map(",".join, parts)
        self._clear()
        return (
            f'{{"tokens":[{tokens}],"token_logprobs":[{scores}],"top_logprobs":[{best}],'
            f'"text_offset":[{offsets}]}}'
        )


class Choice:
    """One choice of a completion, as JSON.

    `take` returns what came since its last call: a part of the text in a stream, or all of it.
    """

    def __init__(
        self, index: int, model: LoadedModel, *, echo: bool, n_best: int | None, is_empty: bool
    ) -> None:
        """echo: begin with the prompt. n_best: log probabilities; None: without. is_empty: leave
        the tokens out, because the client wants none.
        """
        self._tail = f',"index":{index},"logprobs":'
        self._model = model
        self._echo = echo
        self._is_empty = is_empty
        self._scores = None if n_best is None else LogProbs(model)
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
        """Return what's new; None if there's nothing to show."""
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
        if not self._echo:
            return
        tokens, scored = sequence.prompt.tokens, sequence.prompt_scores
        self._texts.append(self._model.tokenizer.decode(tokens))
        if not self._scores:
            return
        n_unscored = len(tokens) - len(scored)
        for token in tokens[:n_unscored]:
            self._scores.add(token, None, ())
        for token, (own, *best) in zip(tokens[n_unscored:], scored, strict=True):
            self._scores.add(token, own.log_probability, best)


def _number(value: float) -> str:
    return f"{max(value, LEAST_LOGPROB):.6f}"
