"""Read and write nanoGPT's meta.pkl: the vocabulary of a dataset, as a pickled dictionary.

The unpickler knows no classes and no functions, so it can't execute code from a file.
"""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from nanogpt.data.tokenizers import CharTokenizer, Tokenizer
from nanogpt.errors import UserError, shorten
from nanogpt.files.atomic import atomic_write

# More than a file with the largest vocabulary of characters needs.
MOST_BYTES = 2**28


class _ForbiddenError(pickle.UnpicklingError):
    """A pickle refers to a class or a function."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise _ForbiddenError(f"{module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:  # noqa: ARG002
        raise _ForbiddenError("a persistent id")


def write_meta(path: Path, tokenizer: Tokenizer) -> None:
    """Write meta.pkl: the vocabulary size for train.py and the tokens' texts for sample.py.

    A dataset of GPT-2's tokens doesn't need one, because nanoGPT knows these tokens.
    """
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    meta = {
        "vocab_size": len(texts),
        "itos": dict(enumerate(texts)),
        "stoi": {text: token for token, text in enumerate(texts)},
    }
    with atomic_write(path) as file:
        pickle.dump(meta, file)


def read_meta(path: Path) -> CharTokenizer:
    """Read the characters of a meta.pkl.

    Errors: UserError for a file that's missing or damaged, refers to code, or has tokens that
    aren't single characters.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: too large for a vocabulary of characters; {REMEDY}")
        meta = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {REMEDY}") from None
    except _ForbiddenError as error:
        raise UserError(
            f"{path}: refers to code (`{shorten(str(error))}`), which nanogpt never runs from a "
            f"file; {REMEDY}"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; {REMEDY}") from None
    except UserError:
        raise
    except Exception:  # a damaged pickle can raise anything
        raise UserError(f"{path}: damaged: not a pickle; {REMEDY}") from None
    vocabulary = _find_characters(meta)
    if vocabulary is None:
        raise UserError(f"{path}: not a vocabulary of single characters; {REMEDY}")
    return CharTokenizer(vocabulary)


REMEDY = "use the meta.pkl that nanoGPT's prepare.py wrote for the dataset"


def _find_characters(meta: object) -> str | None:
    """The characters in the order of their ids; None if a meta.pkl has anything else."""
    itos = meta.get("itos") if isinstance(meta, dict) else None
    if isinstance(itos, list):
        itos = dict(enumerate(itos))
    if not isinstance(itos, dict) or not itos:
        return None
    texts = [itos.get(token) for token in range(len(itos))]
    if not all(isinstance(text, str) and len(text) == 1 for text in texts):
        return None
    vocabulary = "".join(map(str, texts))
    is_unicode = not any("\ud800" <= character <= "\udfff" for character in vocabulary)
    return vocabulary if is_unicode and len(set(vocabulary)) == len(vocabulary) else None
