"""The names of a vocabulary's tokens in `logprobs`, each of them different."""

from functools import cached_property
from json.encoder import encode_basestring_ascii

from nanogpt.data.byte_pairs import END_OF_TEXT
from nanogpt.data.tokenizers import Tokenizer


class TokenNames:
    """The tokens of a vocabulary by name.

    A token's name is its text; `bytes:\\xe2\\x80` if that isn't whole characters; and
    `<|endoftext|>` if it has none. Where several tokens would have one name, the later ones get
    their id after it: ` (token 17)`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __getitem__(self, token: int) -> str:
        return self._names[token]

    @cached_property
    def as_json(self) -> list[str]:
        """Each token's name as a JSON string."""
        return [encode_basestring_ascii(name) for name in self._names]

    @cached_property
    def _names(self) -> list[str]:
        names: list[str] = []
        taken: set[str] = set()
        for token in range(self._tokenizer.vocab_size):
            name = _name(self._tokenizer.to_bytes([token]))
            if name in taken:
                name = f"{name} (token {token})"
            taken.add(name)
            names.append(name)
        return names


def _name(text: bytes) -> str:
    """Return the name of a token with this text."""
    if not text:
        return END_OF_TEXT
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)
