"""Prompts: the text or file that samples continue, as tokens."""

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
    """Encode all prompts: at least one prompt, with at least one token each.

    start: the tokens that precede a text, used if there's no prompt.

    Errors: UserError for an unreadable file, or characters that aren't in the vocabulary.
    """
    if not settings.start:
        return [default_prompt(tokenizer, start)]
    return [
        encode_prompt(tokenizer, text, settings.unknown, where)
        for where, text in _prompt_texts(settings)
    ]


def encode_prompt(tokenizer: Tokenizer, text: str, unknown: str, where: str) -> list[int]:
    """Encode a prompt to at least one token. where: the prompt's name in messages.

    Errors: UserError for characters that aren't in the vocabulary.
    """
    try:
        ids = tokenizer.encode_prompt(text, "skip" if unknown == "skip" else "error")
    except UserError as error:
        raise UserError(f"{where}: {error}, or set `unknown: skip`") from None
    if not len(ids):
        raise UserError(
            f"{where}: none of its characters are in the vocabulary; use another prompt"
        )
    return list(map(int, ids))


def default_prompt(tokenizer: Tokenizer, start: Sequence[int]) -> list[int]:
    """Return the tokens to start from without a prompt.

    They are the tokens that precede a text if the model records them, otherwise a line feed, or
    token 0 if the vocabulary has no line feed.
    """
    return list(start) or list(map(int, tokenizer.encode("\n", "skip"))) or [0]


def _prompt_texts(settings: SampleSettings) -> list[tuple[str, str]]:
    """Return each prompt's name in messages, and its text."""
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
        raise UserError(f"sample.start: {path}: empty file; put a prompt in it")
    return prompts
