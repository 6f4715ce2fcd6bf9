"""Prompts: the text or file that a sample goes on from, as tokens."""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.config.schema import SampleSettings
from nanogpt.config.values import warn_of_escapes
from nanogpt.data.formats import read_text
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError


def encode_prompt(
    tokenizer: Tokenizer, settings: SampleSettings, start: Sequence[int] = ()
) -> list[int]:
    """The tokens of a prompt, one at least.

    start: what a text begins after, which stands for a prompt that isn't given.

    Errors: UserError for a file that can't be read, or characters that the vocabulary lacks.
    """
    if not settings.start:
        return list(start) or _line_feed(tokenizer)
    text = _prompt_text(settings.start)
    try:
        ids = tokenizer.encode_prompt(text, settings.unknown)
    except UserError as error:
        raise UserError(f"sample.start: {error}, or say `unknown: skip`") from None
    if not len(ids):
        raise UserError("sample.start: no character of it is in the vocabulary; give another start")
    return list(map(int, ids))


def _line_feed(tokenizer: Tokenizer) -> list[int]:
    """What stands for no prompt where a model doesn't say; any token if there is no line feed."""
    return list(map(int, tokenizer.encode("\n", "skip"))) or [0]


def _prompt_text(start: str) -> str:
    """The text of `start`, which may be FILE:path."""
    if not start.startswith("FILE:"):
        warn_of_escapes(start, "sample.start")
        return start
    path = Path(start.removeprefix("FILE:"))
    try:
        text = read_text(path)
    except UserError as error:
        raise UserError(f"sample.start: {error}") from None
    if not text:
        raise UserError(f"sample.start: {path}: empty; put a prompt there")
    return text
