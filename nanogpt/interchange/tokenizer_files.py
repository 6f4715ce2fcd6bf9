"""Read and write Hugging Face's tokenizer.json, the format of the package `tokenizers`.

Characters become a WordLevel model, which rejects unknown characters like ours. (Byte pairs
without merges would drop them.) Bytes become byte pairs without merges.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from nanogpt.artifacts.records.base import field_name
from nanogpt.data.byte_pairs import (
    BYTE_OF_CHARACTER,
    CHARACTER_OF_BYTE,
    END_OF_TEXT,
    BytePairTokenizer,
    from_printable,
    single_bytes,
)
from nanogpt.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt.errors import UserError, shorten

# Any single character, including line feeds, in Oniguruma's syntax.
ONE_CHARACTER = r"[\s\S]"
# The unknown token of a WordLevel model. It isn't in the vocabulary, so an unknown character is an
# error.
NO_UNKNOWN = "<unk>"


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The content of a Hugging Face tokenizer.json for one of our tokenizers.

    Errors: UserError for byte pairs with a token that isn't the join of two others.
    """
    if isinstance(tokenizer, CharTokenizer):
        theirs = _convert_characters(tokenizer)
    elif isinstance(tokenizer, ByteTokenizer):
        theirs = _convert_bytes()
    else:
        assert isinstance(tokenizer, BytePairTokenizer)
        theirs = _convert_byte_pairs(tokenizer)
    return f"{theirs.to_str(pretty=True)}\n"


def _convert_characters(tokenizer: CharTokenizer) -> Any:
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Theirs

    ids = {character: token for token, character in enumerate(tokenizer.vocabulary)}
    theirs = Theirs(models.WordLevel(ids, unk_token=NO_UNKNOWN))
    theirs.pre_tokenizer = pre_tokenizers.Split(Regex(ONE_CHARACTER), behavior="isolated")
    theirs.decoder = decoders.Fuse()
    return theirs


def _convert_bytes() -> Any:
    from tokenizers import Tokenizer as Theirs
    from tokenizers import decoders, models, pre_tokenizers

    ids = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
    theirs = Theirs(models.BPE(ids, []))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.decoder = decoders.ByteLevel()
    return theirs


def _convert_byte_pairs(tokenizer: BytePairTokenizer) -> Any:
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Theirs

    ids = {text: token for token, text in enumerate(printable_tokens(tokenizer))}
    theirs = Theirs(models.BPE(ids, merges_of(tokenizer)))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    theirs.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return theirs


def printable_tokens(tokenizer: BytePairTokenizer) -> list[str]:
    """Each token except `<|endoftext|>`, as spelled in GPT-2's files."""
    return ["".join(map(CHARACTER_OF_BYTE.__getitem__, token)) for token in tokenizer.tokens]


def merges_of(tokenizer: BytePairTokenizer) -> list[tuple[str, str]]:
    """The pair of tokens that each longer token is joined from, in merge order.

    Our tokenizers only store the tokens. A token's pair is what remains of its bytes after all
    earlier merges.

    Errors: UserError for a token that isn't the join of two earlier ones.
    """
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    merges = []
    for token, rank in ranks.items():
        if len(token) == 1:
            continue
        parts = _join(token, ranks, rank)
        if len(parts) != 2:
            raise UserError(
                f"the tokenizer's token {shorten(repr(token))} isn't the join of two others, which "
                "this format requires; train on a dataset with `tokenizer: bpe` or `gpt2`"
            )
        left, right = ("".join(map(CHARACTER_OF_BYTE.__getitem__, part)) for part in parts)
        merges.append((left, right))
    return merges


def _join(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """The parts of a token after all merges of a rank below `limit`, lowest rank first."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, limit) for a, b in itertools.pairwise(parts)]
        first = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[first] >= limit:
            break
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts


class _Part(BaseModel):
    """The relevant fields of a part of a tokenizer, such as its normalizer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    add_prefix_space: bool = False
    use_regex: bool = True


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str = "BPE"
    vocab: dict[str, int]
    merges: list[str | tuple[str, str]] = []


class _Added(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int
    content: str


class _File(BaseModel):
    """The fields of a tokenizer.json that affect how a text is encoded."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: _Model
    added_tokens: list[_Added] = []
    normalizer: _Part | None = None
    pre_tokenizer: _Part | None = None
    post_processor: _Part | None = None


def read_tokenizer_json(path: Path) -> Tokenizer:
    """Read a Hugging Face tokenizer.json as one of our tokenizers.

    Errors: UserError for a file that's missing or damaged, and for an unsupported tokenizer.
    """
    try:
        file = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; put the model's tokenizer.json there (transformers writes it "
            "with `AutoTokenizer.from_pretrained(...).save_pretrained(...)`)"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path}: a directory, not a file; {AGAIN}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = field_name(first["loc"]) or "its content"
        raise UserError(f"{path}: not a tokenizer: `{field}`: {first['msg']}; {AGAIN}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: damaged: not JSON; {AGAIN}") from None
    tokenizer = _convert(file)
    if isinstance(tokenizer, str):
        raise UserError(
            f"{path}: unsupported: this tokenizer {tokenizer}; use a model whose tokens are "
            "characters, bytes, or byte pairs like GPT-2's"
        )
    return tokenizer


AGAIN = "export or download it again"


def _convert(file: _File) -> Tokenizer | str:
    """The tokenizer of a file, or a description of why it isn't supported."""
    if file.normalizer is not None:
        return f"changes the text first ({file.normalizer.type})"
    if file.post_processor is not None and file.post_processor.type != "ByteLevel":
        return f"adds tokens to the text ({file.post_processor.type})"
    texts = sorted(file.model.vocab, key=file.model.vocab.__getitem__)
    if not texts:
        return "has no tokens"
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        return "has a token that isn't Unicode text"
    others = [added for added in file.added_tokens if added.content != END_OF_TEXT]
    if others:
        return f"has a special token {shorten(others[0].content)!r}"
    for added in file.added_tokens:  # it's often in the vocabulary as well
        if added.id != len(texts) - (added.content in file.model.vocab):
            return f"has {END_OF_TEXT} as token {added.id}, not as the last one"
    if sorted(file.model.vocab.values()) != list(range(len(texts))):
        return "has gaps between its ids"
    if file.model.type == "WordLevel":
        if all(len(text) == 1 for text in texts) and not file.added_tokens:
            return CharTokenizer("".join(texts))
        return "has whole words as tokens"
    if file.model.type != "BPE" or file.pre_tokenizer is None:
        return f"is a {file.model.type} model"
    return _convert_byte_level(file, texts)


def _convert_byte_level(file: _File, texts: list[str]) -> Tokenizer | str:
    splitter = file.pre_tokenizer
    if splitter is None or splitter.type != "ByteLevel" or splitter.add_prefix_space:
        return "doesn't split text into bytes like GPT-2's"
    if file.added_tokens and texts[-1] == END_OF_TEXT:
        texts = texts[:-1]
    strange = next((text for text in texts if set(text) - set(BYTE_OF_CHARACTER)), None)
    if strange is not None:
        return f"has a token {shorten(strange)!r} that isn't in GPT-2's spelling of bytes"
    tokens = [from_printable(text) for text in texts]
    if not file.model.merges and not file.added_tokens:
        in_order = [bytes([byte]) for byte in range(256)]
        return ByteTokenizer() if tokens == in_order else "has no merges of byte pairs"
    if not file.added_tokens:
        return f"has no {END_OF_TEXT}"
    joined = [
        "".join(pair.split(" ")) if isinstance(pair, str) else "".join(pair)
        for pair in file.model.merges
    ]
    longer = [text for text in texts if len(text) > 1]
    if not set(single_bytes()) <= set(tokens) or joined != longer or not splitter.use_regex:
        return "doesn't number its tokens in merge order"
    return BytePairTokenizer(tuple(tokens))
