"""Prompts: the text or file that samples go on from, as tokens."""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.config.schema import LINES, SampleSettings
from nanogpt.config.values import warn_of_escapes
from nanogpt.data.formats import read_text
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.errors import UserError


def encode_prompts(
    tokenizer: Tokenizer, settings: SampleSettings, start: Sequence[int] = ()
) -> list[list[int]]:
    """The tokens of each prompt, one token and one prompt at least.

    start: what a text begins after, which takes the place of a prompt that isn't given.

    Errors: UserError for a file that can't be read, or characters that the vocabulary lacks.
    """
    if not settings.start:
        return [default_prompt(tokenizer, start)]
    return [
        encode_prompt(tokenizer, text, settings.unknown, where)
        for where, text in _prompt_texts(settings)
    ]


def encode_prompt(tokenizer: Tokenizer, text: str, unknown: str, where: str) -> list[int]:
    """The tokens of a prompt, at least one. where: how a message names it.

    Errors: UserError for characters that the vocabulary lacks.
    """
    try:
        ids = tokenizer.encode_prompt(text, "skip" if unknown == "skip" else "error")
    except UserError as error:
        raise UserError(f"{where}: {error}, or say `unknown: skip`") from None
    if not len(ids):
        raise UserError(f"{where}: no character of it is in the vocabulary; give another start")
    return list(map(int, ids))


def default_prompt(tokenizer: Tokenizer, start: Sequence[int]) -> list[int]:
    """What takes the place of no prompt: what a text begins after, where a model says that.

    Otherwise a line feed, or any token if the vocabulary lacks it.
    """
    return list(start) or list(map(int, tokenizer.encode("\n", "skip"))) or [0]


def _prompt_texts(settings: SampleSettings) -> list[tuple[str, str]]:
    """The text of each prompt, and how a message names it."""
    if settings.prompt_file is None:
        warn_of_escapes(settings.start, "sample.start")
        return [("sample.start", settings.start)]
    path = Path(settings.prompt_file)
    try:
        text = read_text(path)
    except UserError as error:
        raise UserError(f"sample.start: {error}") from None
    prompts = [("sample.start", text)]
    if settings.start.startswith(LINES):
        lines = enumerate((line.removesuffix("\r") for line in text.split("\n")), 1)
        prompts = [(f"sample.start: {path}, line {n}", line) for n, line in lines if line]
    if not any(prompt for _, prompt in prompts):
        raise UserError(f"sample.start: {path}: empty; put a prompt there")
    return prompts
