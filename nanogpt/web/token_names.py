"""The names of a vocabulary's tokens in `logprobs`, each of them different."""

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
        # All of them now: for a large vocabulary, it takes too long during a request.
        self._names: list[str] = []
        taken: set[str] = set()
        for token in range(tokenizer.vocab_size):
            name = _name(tokenizer.to_bytes([token]))
            if name in taken:
                name = f"{name} (token {token})"
            taken.add(name)
            self._names.append(name)
        # Each token's name as a JSON string.
        self.as_json = [encode_basestring_ascii(name) for name in self._names]

    def __getitem__(self, token: int) -> str:
        return self._names[token]


def _name(text: bytes) -> str:
    """Return the name of a token with this text."""
    if not text:
        return END_OF_TEXT
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)
