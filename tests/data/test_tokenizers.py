"""Any text survives every tokenizer, wherever it is cut, and what a vocabulary lacks is named."""

import itertools
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanogpt.data import byte_pairs
from nanogpt.data.byte_pairs import BytePairTokenizer, gpt2_tokenizer, train_byte_pairs
from nanogpt.data.pieces import Piece
from nanogpt.data.pieces import recut as recut_pieces
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    char_tokenizer,
    token_characters,
    token_dtype,
    token_texts,
)
from nanogpt.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

GPT2_FILES = (
    Path(os.environ.get("NANOGPT_MIRROR") or "nowhere")
    / "openaipublic.blob.core.windows.net/gpt-2/encodings/main"
)
needs_gpt2 = pytest.mark.skipif(
    not (GPT2_FILES / "vocab.bpe").is_file(),
    reason="GPT-2's file of merges is not there: NANOGPT_MIRROR is not set, or lacks it",
)
gpt2_only = [pytest.mark.mirror, needs_gpt2]

# Every character that Python or Unicode counts among blanks, line ends and control characters.
BLANKS = sorted(
    chr(code)
    for code in range(0x110000)
    if chr(code).isspace() or unicodedata.category(chr(code)) in ("Zs", "Zl", "Zp", "Cc")
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
FRAGMENTS = [
    "'", "'s", "'ll", "'re", "'S", "\u2019s", "''", "don't", "they've", "7", "2024", "\u0663", "½",
    "a", "B", "Zwölf", "e\u0301", "--", ",", ".", "?", "!", "第3章", "漢字", "ひらがな", "カタカナ",
    "한국어", "々", "。", "\uff0c", "、", "\uff01", "\uff1b", "😀", "🇩🇪", "👩\u200d👧", "\u200d",
    "雨が降る", "風が吹く", "\ufeff", "\u180e", "\0", "<|endoftext|>",
]  # fmt: skip
# What is hard to cut and join: blanks in runs, apostrophes, scripts without blanks, marks.
HARD = st.lists(
    st.one_of(
        st.sampled_from(BLANKS),
        st.sampled_from(" \n\t\r\u00a0\u3000\x1c\x1f\x85").flatmap(
            lambda blank: st.integers(1, 6).map(lambda times: blank * times)
        ),
        st.sampled_from(FRAGMENTS),
        TEXTS.filter(lambda text: len(text) < 5),
    ),
    max_size=40,
).map("".join)

SMALL_TEXT = (
    "The theatre's other brother, they'd say, bothers the father.  It isn't theirs;\n\n"
    "they've  gathered 1024 feathers — 2048 leathers?\tWährend die Bäuerin währte.\r\n"
    "雨が降る。風が吹く。雪が積もる。 春が来る\uff01 😀😀😀\n    indented = [1, 2, 3]\n"
) * 5


@pytest.fixture(scope="module")
def pairs():
    """Byte pairs trained on a small text."""
    return train_byte_pairs([SMALL_TEXT], 350, 1)


@pytest.fixture(scope="module")
def gpt2():
    return gpt2_tokenizer(GPT2_FILES / "vocab.bpe")


EVERY_CHARACTER = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))

ALL_KINDS = ["char", "byte", "pairs", pytest.param("gpt2", marks=gpt2_only)]
BYTE_PAIRS = ["pairs", pytest.param("gpt2", marks=gpt2_only)]


@pytest.fixture(scope="module")
def of_kind(request):
    """A function: name of a kind in, tokenizer that knows every text out."""
    made = {"char": CharTokenizer(EVERY_CHARACTER), "byte": ByteTokenizer()}
    return lambda kind: made[kind] if kind in made else request.getfixturevalue(kind)


def joined(tokenizer, parts):
    """The tokens of parts encoded one by one."""
    return [token for part in parts for token in tokenizer.encode(part).tolist()]


# --- Any text, any tokenizer ----------------------------------------------------------------


@settings(deadline=None)
@given(TEXTS)
def test_any_text_survives_a_vocabulary_of_its_own(text):
    tokenizer = char_tokenizer(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_any_text_survives_and_its_tokens_sum_to_its_bytes(of_kind, kind):
    tokenizer = of_kind(kind)
    n_bytes_of = tokenizer.token_bytes

    @settings(deadline=None)
    @given(st.one_of(TEXTS, HARD))
    @example("")
    def check(text):
        tokens = tokenizer.encode(text)
        assert tokens.dtype == token_dtype(tokenizer.vocab_size)
        assert tokenizer.decode(tokens) == text
        assert tokenizer.to_bytes(tokens) == text.encode()
        assert n_bytes_of[tokens].sum() == len(text.encode())

    check()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_pieces_cut_anywhere_give_the_tokens_of_the_whole(of_kind, kind):
    tokenizer = of_kind(kind)

    @settings(deadline=None)
    @given(HARD, st.lists(st.integers(0, 200)))
    def check(text, places):
        places = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
        pieces = [
            Piece("train", text[start:end], False, "a.txt")
            for start, end in itertools.pairwise(places)
        ]
        recut = list(recut_pieces([*pieces, Piece("train", "", True, "a.txt")], tokenizer.cut))
        assert "".join(piece.text for piece in recut) == text
        assert [piece.ends_document for piece in recut] == [False] * (len(recut) - 1) + [True]
        parts = [piece.text for piece in recut]
        assert joined(tokenizer, parts) == tokenizer.encode(text).tolist()

    check()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_where_a_text_can_be_cut_nothing_that_follows_joins(of_kind, kind):
    tokenizer = of_kind(kind)

    @settings(deadline=None, max_examples=300)
    @given(HARD, HARD)
    @example("a\x1c ", "b")  # a blank to Python alone
    @example("漢字、", "、")
    def check(text, following):
        end = tokenizer.cut(text)
        assert 0 <= end <= len(text)
        whole = text + following
        assert joined(tokenizer, [whole[:end], whole[end:]]) == tokenizer.encode(whole).tolist()

    check()


@pytest.mark.parametrize("kind", BYTE_PAIRS)
@pytest.mark.parametrize("text", ["One two", "One\ntwo", "one, two.\n\nthree", "雨が降る。風"])
def test_there_is_a_place_to_cut_in_text_of_words_or_sentences(of_kind, kind, text):
    assert of_kind(kind).cut(text) > 0


@pytest.mark.parametrize("kind", BYTE_PAIRS)
def test_a_place_to_cut_is_found_however_far_back_it_is(of_kind, kind):
    assert of_kind(kind).cut("one two" + "x" * 100_000) == 3
    assert of_kind(kind).cut("x" * 100_000) == 0


@pytest.mark.parametrize("kind", BYTE_PAIRS)
def test_long_blanks_taken_apart_change_no_token(of_kind, kind, monkeypatch):
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


@pytest.mark.parametrize("kind", BYTE_PAIRS)
def test_a_run_of_two_million_blanks_amid_indented_code_is_encoded(of_kind, kind):
    text = "   b" * 3000 + " " * (1 << 21) + "b"
    tokenizer = of_kind(kind)
    assert tokenizer.to_bytes(tokenizer.encode(text)) == text.encode()


@pytest.mark.parametrize("kind", BYTE_PAIRS)
def test_the_end_of_a_text_is_a_token_but_its_name_in_a_text_is_plain_text(of_kind, kind):
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


def test_after_a_document_characters_and_bytes_have_the_separator():
    assert ByteTokenizer().end_of_document("é\n").tolist() == [0xC3, 0xA9, 10]
    assert char_tokenizer("ab\n").end_of_document("\n").tolist() == [0]
    assert len(ByteTokenizer().end_of_document("")) == 0
    assert len(char_tokenizer("ab").end_of_document("")) == 0
    with pytest.raises(UserError, match=r"U\+000A"):
        char_tokenizer("ab").end_of_document("\n")


@pytest.mark.parametrize("kind", ["byte", *BYTE_PAIRS])
def test_half_a_character_is_decoded_to_a_mark_of_replacement(of_kind, kind):
    tokenizer = of_kind(kind)
    single = {tokenizer.to_bytes([token]): token for token in range(256)}
    assert tokenizer.decode([single[b"\xf0"], single[b"\x9f"]]) == "\ufffd"
    assert tokenizer.to_bytes([single[b"\xf0"], single[b"\x9f"]]) == b"\xf0\x9f"


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_decode_takes_lists_and_arrays_of_any_integer_type(of_kind, kind):
    tokenizer = of_kind(kind)
    tokens = tokenizer.encode("the cab")
    assert tokenizer.decode(tokens.tolist()) == "the cab"
    assert tokenizer.decode(tokens.astype(np.int64)) == "the cab"
    assert tokenizer.decode([]) == ""
    assert tokenizer.to_bytes([]) == b""


@pytest.mark.parametrize("kind", ["pairs", "byte"])
def test_no_text_has_a_character_that_bytes_lack(of_kind, kind):
    tokenizer = of_kind(kind)
    assert tokenizer.encode("漢😀", "skip").tolist() == tokenizer.encode("漢😀").tolist()
    assert tokenizer.decode(tokenizer.encode("漢😀")) == "漢😀"


# --- Characters -----------------------------------------------------------------------------


@settings(deadline=None)
@given(TEXTS)
def test_ids_are_places_in_the_order_of_code_points(text):
    tokenizer = char_tokenizer(text)
    symbols = sorted(set(text))
    assert tokenizer.vocabulary == "".join(symbols)
    assert tokenizer.vocab_size == len(symbols)
    assert tokenizer.encode(text).tolist() == [symbols.index(c) for c in text]


def test_code_points_beyond_the_basic_plane_come_last():
    # In UTF-16 they would come before U+FFFD.
    assert char_tokenizer("😀\ufffda").vocabulary == "a\ufffd😀"


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_unknown_characters_are_skipped_when_asked_for_and_named_otherwise(known, text):
    tokenizer = char_tokenizer(known)
    kept = "".join(c for c in text if c in known)
    assert tokenizer.decode(tokenizer.encode(text, "skip")) == kept
    if kept == text:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    else:
        first = next(c for c in text if c not in known)
        with pytest.raises(UserError) as error:
            tokenizer.encode(text)
        assert f"U+{ord(first):04X}" in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_the_message_names_each_unknown_character_once_with_what_to_do():
    with pytest.raises(UserError) as error:
        char_tokenizer("abc").encode("aéb😀é\n")
    assert str(error.value) == (
        "the tokenizer's vocabulary of 3 characters lacks 'é' (U+00E9), '😀' (U+1F600), "
        "'\\n' (U+000A); leave them out"
    )


def test_of_many_unknown_characters_five_are_named():
    told = r"'0' .*'4' \(U\+0034\) and 5 more; leave them out$"
    with pytest.raises(UserError, match=told) as error:
        char_tokenizer("abc").encode("0123456789")
    assert str(error.value).count("U+") == 5


def test_the_bytes_of_a_character_are_those_of_utf_8():
    tokenizer = char_tokenizer("aé€😀")
    assert tokenizer.token_bytes.tolist() == [1, 2, 3, 4]
    assert tokenizer.token_bytes.dtype == np.int64


def test_ids_have_the_dtype_of_the_token_files():
    assert char_tokenizer("ab").encode("ab").dtype == np.uint16
    large = CharTokenizer("".join(map(chr, range(0x10000, 0x10000 + 65_536))))
    assert large.encode("\U00010000").dtype == np.uint32


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(1, np.uint16), (65_535, np.uint16), (65_536, np.uint32), (1_114_112, np.uint32)],
)
def test_more_than_65535_symbols_need_four_bytes(vocab_size, dtype):
    assert token_dtype(vocab_size) is dtype


# --- Bytes ----------------------------------------------------------------------------------


def test_a_byte_is_its_own_id():
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 256
    assert tokenizer.encode("aé").tolist() == [0x61, 0xC3, 0xA9]
    assert tokenizer.token_bytes.tolist() == [1] * 256


# --- GPT-2 ----------------------------------------------------------------------------------


@pytest.mark.mirror
@needs_gpt2
def test_gpt2_has_the_ids_of_its_published_vocabulary(gpt2):
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


# --- Trained byte pairs ---------------------------------------------------------------------


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


def test_trained_byte_pairs_shorten_the_text_they_come_from(pairs):
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


def test_training_takes_a_word_without_end_for_several_and_encoding_does_not():
    longest = byte_pairs.LONGEST_TRAINED
    trained = train_byte_pairs(["a" * 8 * longest], 300, 1)
    assert max(map(len, trained.tokens)) == longest
    assert len(trained.encode("a" * 8 * longest)) == 8
    assert trained.encode("b" + "a" * longest).tolist() == [
        *trained.encode("b"),
        *trained.encode("a" * longest),
    ]


def test_training_is_the_same_wherever_the_text_is_cut_between_words(pairs):
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
    # Processes of their own, as the library's threads start but once.
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


# --- Files ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(TEXTS)
def test_a_saved_vocabulary_is_the_same_one(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer = char_tokenizer(text)
    tokenizer.save(path)
    assert load_tokenizer(path) == tokenizer


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_saved_tokenizer_is_the_same_one(of_kind, kind, tmp_path):
    tokenizer = of_kind(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded == tokenizer
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.encode(SMALL_TEXT).tolist() == tokenizer.encode(SMALL_TEXT).tolist()
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_saved_tokenizer_is_json_with_its_type(tmp_path):
    path = tmp_path / "tokenizer.json"

    def saved(tokenizer):
        tokenizer.save(path)
        return json.loads(path.read_text(encoding="utf-8"))

    assert saved(char_tokenizer("ba")) == {"type": "char", "vocabulary": "ab"}
    assert saved(ByteTokenizer()) == {"type": "byte"}
    pairs = saved(train_byte_pairs(["é é é é a a"], 5000, 1))
    assert pairs["type"] == "bpe"
    # As GPT-2's own files write bytes: a space is Ġ.
    assert pairs["tokens"][:3] == ["!", '"', "#"]
    assert pairs["tokens"][256:] == ["Ã©", "ĠÃ©", "Ġa"]


SINGLE = [*byte_pairs.CHARACTER_OF_BYTE.values()]


def bpe_file(*more, single=SINGLE):
    return json.dumps({"type": "bpe", "tokens": [*single, *more]})


def test_byte_pairs_are_loaded_from_the_256_bytes_and_more(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(bpe_file("Ġa", "bc"), encoding="utf-8")
    assert load_tokenizer(path).tokens[256:] == (b" a", b"bc")


DAMAGED = {
    "empty": "",
    "cut short": '{"type": "char", "vocab',
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "nothing in it": "{}",
    "no vocabulary": '{"type": "char"}',
    "a number for a vocabulary": '{"type": "char", "vocabulary": 3}',
    "a list for a vocabulary": '{"type": "char", "vocabulary": ["a", "b"]}',
    "a character twice": '{"type": "char", "vocabulary": "aab"}',
    "another kind": '{"type": "another", "vocabulary": "ab"}',
    "half a character": '{"type": "char", "vocabulary": "a\\ud800"}',
    "brackets without end": 100_000 * "[",
    "no tokens": '{"type": "bpe"}',
    "a number for tokens": '{"type": "bpe", "tokens": 3}',
    "no bytes": '{"type": "bpe", "tokens": []}',
    "a byte missing": bpe_file(single=SINGLE[:-1]),
    "a token twice": bpe_file("ab", "ab"),
    "a number for a token": bpe_file(3),
    "a token of no byte": bpe_file("漢"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"tokenizer\.json: not a tokenizer.*make .* again"
    ) as error:
        load_tokenizer(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["byte", "pairs"])
def test_a_file_cut_short_anywhere_is_damaged(of_kind, kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    of_kind(kind).save(path)
    whole = path.read_bytes().rstrip()

    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, len(whole) - 1))
    def check(size):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a tokenizer"):
            load_tokenizer(path)

    check()


def test_bytes_that_are_no_utf_8_are_a_damaged_file(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b'{"type": "char", "vocabulary": "\xff"}')
    with pytest.raises(UserError, match="not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.bpe"])
def test_an_absent_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: no such file"):
        load_tokenizer(tmp_path / name)


def test_merges_that_are_not_gpt2_s_are_refused(tmp_path):
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nt h\n")
    with pytest.raises(UserError, match=r"vocab\.bpe: not GPT-2's merges"):
        load_tokenizer(tmp_path / "vocab.bpe")


def test_tokenizers_of_the_same_tokens_are_equal_and_others_are_not(pairs):
    assert BytePairTokenizer(pairs.tokens) == pairs
    assert BytePairTokenizer(pairs.tokens[:-1]) != pairs
    assert char_tokenizer("ab") == char_tokenizer("ba") != char_tokenizer("abc")
    assert ByteTokenizer() == ByteTokenizer() != pairs


# --- What tokens are in text ----------------------------------------------------------------

SEEN = "so foul and fair a day I have not seen. Ñandú, 日本語 🎭🎭 123 456\n" * 3
BYTE_PAIRS = train_byte_pairs([SEEN], 300, threads=1)


@given(text=st.text())
def test_the_characters_of_a_texts_tokens_add_up_to_the_text(text):
    for tokenizer in (ByteTokenizer(), BYTE_PAIRS, char_tokenizer(text)):
        counts = token_characters(tokenizer)
        assert counts.shape == (tokenizer.vocab_size,)
        assert counts[tokenizer.encode(text)].sum() == len(text)


def test_characters_are_counted_where_they_begin():
    counts = token_characters(ByteTokenizer())
    assert counts["é".encode()[0]] == 1
    assert counts["é".encode()[1]] == 0
    assert counts.tolist() == [1] * 0x80 + [0] * 0x40 + [1] * 0x40


def test_the_end_of_a_text_has_neither_characters_nor_text():
    end = BYTE_PAIRS.end_of_document("\n")[0]
    assert token_characters(BYTE_PAIRS)[end] == 0
    assert token_texts(BYTE_PAIRS)[end] == b""


def test_the_texts_of_tokens_are_those_that_they_decode_to():
    for tokenizer in (ByteTokenizer(), BYTE_PAIRS, char_tokenizer(SEEN)):
        texts = token_texts(tokenizer)
        assert b"".join(texts[id_] for id_ in tokenizer.encode(SEEN)) == SEEN.encode()
        some = range(0, tokenizer.vocab_size - 1, 7)
        assert [texts[id_] for id_ in some] == [tokenizer.to_bytes([id_]) for id_ in some]
