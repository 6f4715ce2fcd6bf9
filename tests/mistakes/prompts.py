"""Prompts and settings of `nanogpt sample`."""

from collections.abc import Callable, Mapping

from tests.mistakes.base import NOT_UTF8, Mistake, command, in_turn, write_files
from tests.mistakes.materials import MODEL, make_model


def prompt(
    title: str,
    flags: str,
    message: str,
    files: Mapping[str, bytes | str] | None = None,
    is_impossible: Callable[[], bool] = lambda: False,
) -> Mistake:
    """`nanogpt sample` with bad flags, on a model whose letters are a, b and c."""
    before = in_turn(make_model, lambda: write_files(files or {}))
    return command(title, f"sample {MODEL} {flags}", message, before, is_impossible)


PROMPTS = [
    prompt(
        "a letter the model doesn't know",
        "--start 'a cab, café'",
        "--start: the tokenizer's vocabulary of 5 characters lacks ',' (U+002C),"
        " 'f' (U+0066), 'é' (U+00E9); leave them out, or set `--unknown=skip`",
    ),
    prompt(
        "a prompt with no letter the model knows",
        "--start xyz --unknown skip",
        "--start: none of its characters are in the vocabulary; use another prompt",
    ),
    prompt(
        "a missing prompt file",
        "--start FILE:prompt.txt",
        "--start: prompt.txt: no such file; put a text there or correct the path",
    ),
    prompt(
        "a directory instead of a prompt file",
        "--start FILE:prompts",
        "--start: prompts: a directory, not a file; name a text file in it",
        {"prompts/a.txt": "a"},
    ),
    prompt(
        "a binary prompt",
        "--start FILE:prompt.bin",
        "--start: the tokenizer's vocabulary of 5 characters lacks '\\x00' "
        "(U+0000); leave it out, or set `--unknown=skip`",
        {"prompt.bin": b"a\0b"},
    ),
    prompt(
        "a prompt file in Latin-1",
        "--start FILE:prompt.txt",
        "--start: prompt.txt: not UTF-8: byte 0xe9 at offset 3; convert it to UTF-8",
        {"prompt.txt": b"caf\xe9"},
    ),
    prompt(
        "a prompt file whose name is too long",
        f"--start FILE:{300 * 'a'}",
        "--start: "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:"
        " can't be read: File name too long; correct the path or get a new copy",
    ),
    prompt(
        "an empty prompt file",
        "--start FILE:prompt.txt",
        "--start: prompt.txt: empty file; put a prompt in it",
        {"prompt.txt": ""},
    ),
    prompt(
        "a prompt that isn't UTF-8",
        f"--start {NOT_UTF8}",
        "--start: not valid UTF-8 (found `caf\\udce9`)",
    ),
    prompt(
        "a negative temperature",
        "--temperature -1",
        "--temperature: should be greater than or equal to 0 (found `-1.0`)",
    ),
    prompt(
        "a negative --top-k",
        "--top-k -1",
        "--top_k: should be greater than or equal to 0 (found `-1`)",
    ),
    prompt(
        "a --top-p of zero",
        "--top-p 0",
        "--top_p: should be greater than 0 (found `0.0`)",
    ),
    prompt(
        "a --min-p above one",
        "--min-p 2",
        "--min_p: should be less than or equal to 1 (found `2.0`)",
    ),
    prompt(
        "a repetition penalty of zero",
        "--repetition-penalty 0",
        "--repetition_penalty: should be greater than 0 (found `0.0`)",
    ),
    prompt(
        "an empty stop string",
        "--stop ''",
        "--stop: should not be empty (found `''`)",
    ),
    prompt(
        "a sliding window with learned positions",
        "--window slide",
        "--window: `slide` needs rotary positions, but this model's are learned; use `half` or "
        "`crop`",
    ),
    prompt(
        "drafts from a model without n-grams",
        "--draft 4",
        "--draft: this model has no n-grams; set `ngram: on` in its run (or `ngram: {weight: 0}` "
        "to keep the model's own text), or set `--draft=0`",
    ),
    prompt(
        "a negative draft length",
        "--draft -1",
        "--draft: should be greater than or equal to 0 (found `-1`)",
    ),
    prompt(
        "a prompt file whose lines are all empty",
        "--start LINES:prompts.txt",
        "--start: prompts.txt: empty file; put a prompt in it",
        {"prompts.txt": "\n\n"},
    ),
    prompt(
        "a letter the model doesn't know, in one of several prompts",
        "--start LINES:prompts.txt",
        "--start: prompts.txt, line 2: the tokenizer's vocabulary of 5 characters lacks"
        " 'x' (U+0078); leave it out, or set `--unknown=skip`",
        {"prompts.txt": "a cab\nx\n"},
    ),
    prompt(
        "zero samples",
        "--num-samples 0",
        "--num_samples: should be greater than or equal to 1 (found `0`)",
    ),
    prompt(
        "samples with zero tokens",
        "--max-new-tokens 0",
        "--max_new_tokens: should be greater than or equal to 1 (found `0`)",
    ),
    prompt(
        "a negative sampling seed",
        "--seed -1",
        "--seed: should be greater than or equal to 0 (found `-1`)",
    ),
]
