"""Load a tokenizer of any kind from its file."""

from pathlib import Path

from nanogpt.data.byte_pairs import BytePairTokenizer, from_printable, gpt2_tokenizer, single_bytes
from nanogpt.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt.errors import REMAKE, UserError, missing_file
from nanogpt.files.atomic import read_json


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer written by `save`, or GPT-2's from its file of merges, vocab.bpe.

    Errors: UserError for a file that's missing or isn't a tokenizer.
    """
    if Path(path).suffix == ".bpe" and Path(path).exists():
        return gpt2_tokenizer(Path(path))
    try:
        saved = read_json(path)
        if saved["type"] == "char":
            vocabulary = saved["vocabulary"]
            vocabulary.encode("utf-8")  # fails for a lone surrogate, which isn't a character
            if len(set(vocabulary)) == len(vocabulary):
                return CharTokenizer(vocabulary)
        if saved["type"] == "byte":
            return ByteTokenizer()
        if saved["type"] == "bpe":
            tokens = tuple(map(from_printable, saved["tokens"]))
            if set(single_bytes()) <= set(tokens) and len(set(tokens)) == len(tokens):
                return BytePairTokenizer(tokens)
    except FileNotFoundError:
        raise missing_file(path) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise UserError(f"{path}: not a nanogpt tokenizer; {REMAKE}")
