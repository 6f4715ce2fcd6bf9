"""Byte pairs: GPT-2's match OpenAI's, and training doesn't depend on where a text is cut."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.data import byte_pairs
from nanogpt.data.byte_pairs import train_byte_pairs
from nanogpt.data.pieces import Piece
from nanogpt.data.pieces import recut as recut_pieces
from tests.data.hard_texts import (
    BLANKS,
    BYTE_PAIR_KINDS,
    GPT2_FILES,
    HARD,
    SMALL_TEXT,
    TEXTS,
    needs_gpt2,
)

ROOT = Path(__file__).resolve().parents[2]


# --- Encoding -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BYTE_PAIR_KINDS)
@pytest.mark.parametrize("text", ["One two", "One\ntwo", "one, two.\n\nthree", "雨が降る。風"])
def test_text_with_words_or_sentences_can_be_cut(of_kind, kind, text):
    assert of_kind(kind).cut(text) > 0


@pytest.mark.parametrize("kind", BYTE_PAIR_KINDS)
def test_a_place_to_cut_is_found_however_far_back_it_is(of_kind, kind):
    assert of_kind(kind).cut("one two" + "x" * 100_000) == 3
    assert of_kind(kind).cut("x" * 100_000) == 0


@pytest.mark.parametrize("kind", BYTE_PAIR_KINDS)
def test_encoding_long_blanks_separately_changes_no_token(of_kind, kind, monkeypatch):
    tokenizer = of_kind(kind)

    @settings(deadline=None, max_examples=300)
    @given(HARD)
    def check(text):
        with monkeypatch.context() as patch:
            patch.setattr(byte_pairs, "LONG_BLANKS_APART", 10**9)
            whole = tokenizer.encode(text).tolist()
            patch.setattr(byte_pairs, "LONG_BLANKS_APART", 1)
            assert tokenizer.encode(text).tolist() == whole

    check()


@pytest.mark.parametrize("kind", BYTE_PAIR_KINDS)
def test_two_million_blanks_within_indented_code_are_encoded(of_kind, kind):
    text = "   b" * 3000 + " " * (1 << 21) + "b"
    tokenizer = of_kind(kind)
    assert tokenizer.to_bytes(tokenizer.encode(text)) == text.encode()


@pytest.mark.parametrize("kind", BYTE_PAIR_KINDS)
def test_end_of_text_is_a_token_but_its_spelling_in_a_text_is_plain_text(of_kind, kind):
    tokenizer = of_kind(kind)
    end = tokenizer.vocab_size - 1
    tokens = tokenizer.encode("before<|endoftext|>after")
    assert len(tokens) > 3
    assert end not in tokens
    assert tokenizer.decode(tokens) == "before<|endoftext|>after"
    assert tokenizer.end_of_document("any").tolist() == [end]
    assert tokenizer.end_of_document("any").dtype == tokens.dtype
    assert tokenizer.decode([end]) == "<|endoftext|>"
    assert tokenizer.token_bytes[end] == 0


# --- GPT-2 ----------------------------------------------------------------------------------


@pytest.mark.mirror
@needs_gpt2
def test_gpt2_tokens_have_their_published_ids(gpt2):
    published = json.loads((GPT2_FILES / "encoder.json").read_text(encoding="utf-8"))
    assert published.pop("<|endoftext|>") == len(gpt2.tokens) == 50256
    assert gpt2.vocab_size == 50257
    ours = {
        "".join(map(byte_pairs.CHARACTER_OF_BYTE.__getitem__, token)): number
        for number, token in enumerate(gpt2.tokens)
    }
    assert ours == published


@pytest.mark.mirror
@needs_gpt2
def test_gpt2_tokens_are_those_of_tiktoken_with_gpt2_s_own_pattern(gpt2, reference):
    @settings(deadline=None, max_examples=1000)
    @given(st.one_of(HARD, TEXTS), st.booleans())
    def check(text, apart):
        with pytest.MonkeyPatch.context() as patch:
            if apart:
                patch.setattr(byte_pairs, "LONG_BLANKS_APART", 1)
            assert gpt2.encode(text).tolist() == reference.encode_ordinary(text)

    check()


@pytest.mark.mirror
@needs_gpt2
@pytest.mark.parametrize("apart", [1, 2000])
def test_gpt2_and_tiktoken_agree_on_what_a_blank_is(gpt2, reference, apart, monkeypatch):
    monkeypatch.setattr(byte_pairs, "LONG_BLANKS_APART", apart)
    for blank in BLANKS:
        for times in range(1, 5):
            run = blank * times
            for text in (
                run,
                f"a{run}",
                f"{run}b",
                f"a{run}b",
                f"a {run}'s",
                f"a{run} 1",
                f"。{run}\n",
            ):
                assert gpt2.encode(text).tolist() == reference.encode_ordinary(text), repr(text)


@pytest.mark.mirror
@needs_gpt2
def test_gpt2_and_tiktoken_agree_on_long_text_with_few_long_blanks(gpt2, reference):
    sentence = "Nobody's  seen 12 owls;\n\nthey'd  flown — 雨が降る。 "
    text = ("word " * 1000 + "\n\n\n    " + sentence) * 20 + "end \n\n"
    assert gpt2.encode(text).tolist() == reference.encode_ordinary(text)
    dense = ("    if x:\n        y = 'a  b'\n\n\n" * 500) + "\t\t\t"
    assert gpt2.encode(dense).tolist() == reference.encode_ordinary(dense)


# --- Training -------------------------------------------------------------------------------


def test_trained_byte_pairs_have_all_bytes_and_each_token_once(pairs):
    assert pairs.vocab_size == 350
    assert len(set(pairs.tokens)) == len(pairs.tokens) == 349
    assert {bytes([byte]) for byte in range(256)} <= set(pairs.tokens)
    assert all(len(token) > 1 for token in pairs.tokens[256:])


def test_each_joined_token_is_two_tokens_of_lower_ids(pairs):
    known = set(pairs.tokens[:256])
    for token in pairs.tokens[256:]:
        assert any(token[:cut] in known and token[cut:] in known for cut in range(1, len(token)))
        known.add(token)


def test_trained_byte_pairs_shorten_their_training_text(pairs):
    assert len(pairs.encode(SMALL_TEXT)) < 0.5 * len(SMALL_TEXT.encode())
    assert b" the" in pairs.tokens


def test_the_most_frequent_pair_is_joined_first():
    trained = train_byte_pairs(["ab ab ab ab cd cd cd ef ef"], 258, 1)
    assert trained.tokens[256:] == (b"ab",)


def test_no_pair_is_joined_across_words():
    trained = train_byte_pairs(["one two one two, 'two' two's 12\n\n" * 50], 10_000, 1)
    assert {b" two", b" one", b"'s"} <= {*trained.tokens}
    words = {b"one", b" one", b" two", b"two", b",", b" '", b"'", b"'s", b" 12", b"\n\n"}
    for token in trained.tokens[256:]:
        assert any(token in word for word in words)


def test_a_text_with_few_pairs_gives_fewer_tokens():
    trained = train_byte_pairs(["abab"], 5000, 1)
    assert trained.tokens[256:] == (b"ab", b"abab")
    assert trained.vocab_size == 259
    assert train_byte_pairs([], 5000, 1).vocab_size == 257


def test_training_splits_an_endless_word_but_encoding_does_not():
    longest = byte_pairs.LONGEST_TRAINED
    trained = train_byte_pairs(["a" * 8 * longest], 300, 1)
    assert max(map(len, trained.tokens)) == longest
    assert len(trained.encode("a" * 8 * longest)) == 8
    assert trained.encode("b" + "a" * longest).tolist() == [
        *trained.encode("b"),
        *trained.encode("a" * longest),
    ]


def test_training_does_not_depend_on_where_the_text_is_cut(pairs):
    @settings(deadline=None, max_examples=20)
    @given(st.lists(st.integers(0, len(SMALL_TEXT)), max_size=20))
    def check(places):
        places = [0, *sorted(places), len(SMALL_TEXT)]
        pieces = [
            Piece("train", SMALL_TEXT[start:end], False, "a.txt")
            for start, end in itertools.pairwise(places)
        ]
        recut = recut_pieces([*pieces, Piece("train", "", True, "a.txt")], pairs.cut)
        assert train_byte_pairs((piece.text for piece in recut), 350, 1) == pairs

    check()


def test_training_is_the_same_with_any_number_of_threads_and_in_another_process():
    # In separate processes, because the library starts its threads only once.
    script = (
        "import json, sys\n"
        "from nanogpt.data.byte_pairs import train_byte_pairs\n"
        "pieces, threads = json.load(sys.stdin), int(sys.argv[1])\n"
        "tokens = train_byte_pairs(pieces, 400, threads).tokens\n"
        "print(json.dumps([token.hex() for token in tokens]))\n"
    )
    pieces = SMALL_TEXT.splitlines(keepends=True)
    of_lines = [token.hex() for token in train_byte_pairs(pieces, 400, 1).tokens]
    for threads in ("1", "2", "3"):
        run = subprocess.run(
            [sys.executable, "-c", script, threads],
            cwd=ROOT,
            input=json.dumps(pieces),
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(run.stdout) == of_lines
