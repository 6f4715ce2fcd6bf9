"""Prompts are encoded, and a bad prompt is an error before the training starts."""

import gzip
import os

import numpy as np
import pytest

from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import SampleSettings
from nanogpt.data.byte_pairs import train_byte_pairs
from nanogpt.data.tokenizers import ByteTokenizer, char_tokenizer
from nanogpt.errors import UserError
from nanogpt.inference.checks import check_prompt
from nanogpt.inference.prompts import encode_prompts

TOKENIZER = char_tokenizer("abcdefghijklmnopqrstuvwxyz .,\nÉ日🎭")
PAIRS = train_byte_pairs(["the cat sat on the mat"], 270, 1)
END = PAIRS.vocab_size - 1


def test_a_prompt_becomes_its_tokens():
    (tokens,) = encode_prompts(TOKENIZER, SampleSettings(start="a 日b"))
    assert TOKENIZER.decode(tokens) == "a 日b"


def test_a_prompt_can_come_from_a_file(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_bytes("É 日\n".encode())
    (tokens,) = encode_prompts(TOKENIZER, SampleSettings(start=f"FILE:{path}"))
    assert TOKENIZER.decode(tokens) == "É 日\n"


def test_a_prompt_file_can_be_compressed(tmp_path):
    path = tmp_path / "prompt.txt.gz"
    path.write_bytes(gzip.compress("É 日\n".encode()))
    (tokens,) = encode_prompts(TOKENIZER, SampleSettings(start=f"FILE:{path}"))
    assert TOKENIZER.decode(tokens) == "É 日\n"


@pytest.mark.parametrize("form", ["FILE", "LINES"])
def test_a_pipe_is_refused_without_waiting(tmp_path, form):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Open it for writing, so that an attempt to read it would fail instead of hanging.
    writer = os.open(path, os.O_RDWR)
    os.write(writer, b"once\n" * 300)
    try:
        with pytest.raises(UserError, match="pipe: a pipe or a device, not a file; save"):
            encode_prompts(TOKENIZER, SampleSettings(start=f"{form}:{path}"))
    finally:
        os.close(writer)


def test_each_line_of_a_file_can_be_a_prompt(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("once\n\n É 日\r\nthe end".encode())
    prompts = encode_prompts(TOKENIZER, SampleSettings(start=f"LINES:{path}"))
    assert list(map(TOKENIZER.decode, prompts)) == ["once", " É 日", "the end"]


def test_an_unknown_character_in_a_line_is_named_with_the_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("once\n\nZebra\n")
    with pytest.raises(UserError, match=r"prompts\.txt, line 3: .*'Z' \(U\+005A\)"):
        encode_prompts(TOKENIZER, SampleSettings(start=f"LINES:{path}"))


def test_a_prompt_file_of_empty_lines_is_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n")
    with pytest.raises(UserError, match="empty file; put a prompt in it"):
        encode_prompts(TOKENIZER, SampleSettings(start=f"LINES:{path}"))


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xfa"])
def test_an_unreadable_prompt_file_is_named(tmp_path, content):
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        encode_prompts(TOKENIZER, SampleSettings(start=f"FILE:{path}"))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_characters_of_a_prompt_are_named():
    with pytest.raises(UserError) as error:
        encode_prompts(TOKENIZER, SampleSettings(start="a Zebra!"))
    message = str(error.value)
    for part in ("sample.start", "'Z' (U+005A)", "'!' (U+0021)", "unknown: skip"):
        assert part in message
    assert "\n" not in message


def test_unknown_characters_can_be_skipped():
    (tokens,) = encode_prompts(TOKENIZER, SampleSettings(start="a Zebra!", unknown="skip"))
    assert TOKENIZER.decode(tokens) == "a ebra"


def test_a_prompt_with_only_unknown_characters_is_refused():
    with pytest.raises(UserError, match=r"sample\.start: none of its characters"):
        encode_prompts(TOKENIZER, SampleSettings(start="ZZ!", unknown="skip"))


@pytest.mark.parametrize("start", [(4,), (1, 2)])
def test_without_a_prompt_a_sample_starts_with_the_tokens_before_a_text(start):
    assert encode_prompts(TOKENIZER, SampleSettings(), start) == [list(start)]


@pytest.mark.parametrize("letters", ["ab\n", "ab", "ACGT"])
def test_without_start_tokens_a_sample_starts_with_a_line_feed_or_any_token(letters):
    ((token,),) = encode_prompts(char_tokenizer(letters), SampleSettings())
    assert char_tokenizer(letters).decode([token]) in ("\n", min(letters))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("<|endoftext|>", [END]),
        ("<|endoftext|>the", [END, *PAIRS.encode("the")]),
        (
            "the<|endoftext|><|endoftext|>cat",
            [*PAIRS.encode("the"), END, END, *PAIRS.encode("cat")],
        ),
        ("<|endoftext|", list(PAIRS.encode("<|endoftext|"))),
    ],
)
def test_endoftext_in_a_prompt_is_a_token_if_the_vocabulary_has_it(start, expected):
    assert encode_prompts(PAIRS, SampleSettings(start=start)) == [
        [int(token) for token in expected]
    ]


def test_endoftext_in_a_prompt_is_text_for_byte_tokenizers():
    (tokens,) = encode_prompts(ByteTokenizer(), SampleSettings(start="<|endoftext|>"))
    assert bytes(np.array(tokens, np.uint8)) == b"<|endoftext|>"


@pytest.mark.parametrize(
    ("start", "unknown", "message"),
    [
        ("ROMEO", "error", r"runs\.dna\.sample\.start: .* lacks 'R' .*, or set `unknown: skip`"),
        ("xyz", "skip", r"runs\.dna\.sample\.start: none of its characters are in the vocabulary"),
        ("FILE:nowhere.txt", "error", r"runs\.dna\.sample\.start: nowhere\.txt: no such file"),
        ("ACGT", "error", None),
        ("GATTACA!", "skip", None),
        ("", "error", None),
    ],
)
def test_a_prompt_is_checked_against_the_dataset(tmp_path, start, unknown, message):
    char_tokenizer("ACGT").save(tmp_path / "tokenizer.json")
    sample = as_parameters(SampleSettings(start=start, unknown=unknown))
    if message is None:
        check_prompt("dna", tmp_path, sample)
        return
    with pytest.raises(UserError, match=message):
        check_prompt("dna", tmp_path, sample)
