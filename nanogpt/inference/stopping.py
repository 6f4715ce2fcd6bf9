"""Turn a sequence's tokens into text, piece by piece, up to a stop string."""

import codecs
from collections.abc import Callable, Sequence


class TextPieces:
    """Turns tokens into text.

    It holds back text that may still change: bytes of an incomplete character, and the possible
    start of a stop string. `stopped`: whether a stop string was found; the text ends before it.
    """

    def __init__(self, to_bytes: Callable[[int], bytes], stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._to_bytes = to_bytes
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def add(self, token: int) -> str:
        """Return the text that can be shown after one more token."""
        return self._show(self._decoder.decode(self._to_bytes(token)))

    def rest(self) -> str:
        """Return the held-back text at a sequence's end; U+FFFD for an incomplete character."""
        shown = self._show(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return shown + held

    def _show(self, more: str) -> str:
        text = self._held + more
        if not self._stop:
            return text
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:  # use the first complete one, however the tokens split the text
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        end = len(text) - max(_overlap(text, stop) for stop in self._stop)
        self._held = text[end:]
        return text[:end]


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text are the start of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
