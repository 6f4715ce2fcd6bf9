"""Load a tokenizer of any kind from its file."""

from pathlib import Path

from nanogpt.data.byte_pairs import BytePairTokenizer, from_printable, gpt2_tokenizer, single_bytes
from nanogpt.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt.errors import UserError
from nanogpt.files.atomic import read_json


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer that `save` wrote, or GPT-2's from its file of merges, vocab.bpe.

    Errors: UserError for a file that is absent or no tokenizer.
    """
    if Path(path).suffix == ".bpe" and Path(path).exists():
        return gpt2_tokenizer(Path(path))
    try:
        saved = read_json(path)
        if saved["type"] == "char":
            vocabulary = saved["vocabulary"]
            vocabulary.encode("utf-8")  # fails for half a pair of UTF-16, which is no character
            if len(set(vocabulary)) == len(vocabulary):
                return CharTokenizer(vocabulary)
        if saved["type"] == "byte":
            return ByteTokenizer()
        if saved["type"] == "bpe":
            tokens = tuple(map(from_printable, saved["tokens"]))
            if set(single_bytes()) <= set(tokens) and len(set(tokens)) == len(tokens):
                return BytePairTokenizer(tokens)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make the dataset or model again") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        pass
    raise UserError(f"{path}: not a tokenizer of ours; make the dataset or model again")
