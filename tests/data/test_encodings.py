"""A file's encoding is detected, and its text is decoded in pieces."""

# ruff: noqa: RUF001 (letters of other alphabets are meant)

import codecs
import gzip
import tracemalloc

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nanogpt.config.corpora import Corpus
from nanogpt.data import encodings
from nanogpt.data.encodings import decide_encoding
from nanogpt.data.formats import read_documents
from nanogpt.data.opening import COMPRESSIONS
from nanogpt.errors import UserError
from tests.data.reading import (
    EMOJI,
    ENGLISH,
    EVERY,
    FRENCH,
    GERMAN,
    JAPANESE,
    KOREAN,
    RECOGNISED,
    RUSSIAN,
    SIMPLIFIED,
    SPANISH,
    TRADITIONAL,
    UNFIT,
    WRITTEN,
    complaint,
    decided,
    documents,
    encoded,
    piece_of,
    text_of,
    varied,
    write,
)

# Encodings that are recognised


@pytest.mark.parametrize("text", EVERY, ids=lambda text: text[:8])
@pytest.mark.parametrize(
    ("mark", "encoding", "name"),
    [
        (b"", "utf-8", "utf-8"),
        (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    ],
)
def test_unicode_is_known_by_its_mark_or_as_utf_8(path, caplog, text, mark, encoding, name):
    write(path, mark + text.encode(encoding))
    assert decided(path) == name
    assert documents(path) == [text]
    assert caplog.text == ""


@pytest.mark.parametrize(("text", "encoding", "name"), RECOGNISED)
def test_a_paragraph_in_an_old_encoding_reads_like_its_utf_8_twin_and_the_guess_is_logged(
    path, caplog, text, encoding, name
):
    twin = write(path.with_name("twin.txt"), text)
    write(path, text.encode(encoding))
    assert documents(path) == documents(twin) == [text]
    guess = decided(path)
    assert name in (guess, None)
    assert f"{path}: not UTF-8; guessed {guess}; if characters look wrong" in caplog.text


@pytest.mark.parametrize("text", [ENGLISH, FRENCH, GERMAN, SPANISH], ids=lambda text: text[:8])
def test_five_hundred_characters_of_cp1252_are_enough_wherever_they_begin(path, text):
    for start in range(0, len(text) - 500, 50):
        write(path, text[start : start + 500].encode("cp1252"))
        assert decided(path) == "cp1252"


@pytest.mark.parametrize(("text", "encoding", "name"), RECOGNISED)
def test_a_file_larger_than_the_sample_is_recognised_like_a_small_one(path, text, encoding, name):
    whole = varied(text, 1_500_000)
    write(path, whole.encode(encoding))
    assert path.stat().st_size > 4 * encodings.SAMPLES * encodings.SAMPLE
    assert documents(path) == [whole]
    assert name in (decided(path), None)


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, SIMPLIFIED, EMOJI], ids=lambda text: text[:8])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_large_unicode_file_is_recognised_without_a_guess(path, caplog, text, encoding):
    whole = varied(text, 1_500_000)
    write(path, whole.encode(encoding))
    assert documents(path) == [whole]
    assert caplog.text == ""


@pytest.mark.parametrize("text", [JAPANESE, SIMPLIFIED, KOREAN], ids=lambda text: text[:8])
@pytest.mark.parametrize("start", range(3))
def test_utf_8_without_any_ascii_is_recognised_wherever_the_sample_cuts_its_characters(
    path, caplog, text, start
):
    letters = "".join(letter for letter in text if ord(letter) > 0x7F)
    whole = "é" * start + letters * 5000
    write(path, whole.encode())
    assert path.stat().st_size > 4 * encodings.SAMPLES * encodings.SAMPLE
    assert documents(path) == [whole]
    assert decided(path) == "utf-8"
    assert caplog.text == ""


@pytest.mark.parametrize("place", [0, 1, 1_234_567, encodings.PIECE - 1, encodings.PIECE, -1])
@pytest.mark.parametrize(
    "word", ["café", "caf’", "déjà"], ids=["an accent", "a quote", "two accents"]
)
def test_a_single_word_of_cp1252_in_megabytes_of_ascii_is_found(path, place, word):
    line = "Nothing but ASCII is in this line.\n"
    ascii_text = line * 100_000
    whole = ascii_text[:place] + word + ascii_text[place:]
    write(path, whole.encode("cp1252"))
    assert documents(path) == [whole]
    assert decided(path) == "cp1252"


def test_a_single_letter_of_utf_8_in_megabytes_of_ascii_is_no_reason_to_guess(path, caplog):
    whole = "Nothing but ASCII is in this line.\n" * 100_000 + "é"
    write(path, whole.encode())
    assert documents(path) == [whole]
    assert decided(path) == "utf-8"
    assert caplog.text == ""


def test_the_sample_has_a_bounded_size(path):
    bound = 2 * encodings.SAMPLES * encodings.SAMPLE
    for data in (
        b"x" * 3_000_000,
        "é".encode() * 2_000_000,
        b"x" * 2_000_000 + b"\xe9" * 2_000_000,
    ):
        write(path, data)
        assert 0 < sum(map(len, encodings._sample(path))) <= bound
        packed = write(path.with_name("a.txt.gz"), gzip.compress(data))
        assert encodings._sample(packed) == encodings._sample(path)


# Configured encodings


@pytest.mark.parametrize(("text", "encoding", "name"), WRITTEN)
def test_a_configured_encoding_is_used_and_reported_by_pythons_name(
    path, caplog, text, encoding, name
):
    for whole in (text, varied(text, 300_000)):
        write(path, whole.encode(encoding))
        assert decided(path, encoding=encoding) == name
        assert documents(path, encoding=encoding) == [whole]
    assert caplog.text == ""


def test_a_mark_is_dropped_by_utf_8_sig_and_left_by_utf_8(path):
    write(path, codecs.BOM_UTF8 + b"a")
    assert text_of(path, encoding="utf-8-sig") == "a"
    assert text_of(path, encoding="utf-8") == "\ufeffa"


def test_only_the_first_of_two_marks_is_dropped(path):
    write(path, codecs.BOM_UTF8 * 2 + b"a")
    assert text_of(path) == "\ufeffa"


def test_a_codec_that_is_not_for_text_is_rejected_before_reading():
    for encoding in ("utf-9", "klingon", "rot13", "hex", "undefined", "", "a\0b"):
        with pytest.raises(ValueError, match="unknown encoding"):
            Corpus(files=["a.txt"], encoding=encoding)


# Invalid bytes


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"caf\xe9", "utf-8", "not valid utf-8 (byte 0xe9 at offset 3:"),
        (b"abc\x81", "cp1252", "not valid cp1252 (byte 0x81 at offset 3:"),
        (b"caf\xc3\xa9", "ascii", "not valid ascii (byte 0xc3 at offset 3:"),
        (codecs.BOM_UTF8 + b"abc\xff", "auto", "not valid utf-8-sig (byte 0xff at offset 6:"),
        (codecs.BOM_UTF8 + b"abc\xff", "utf-8-sig", "not valid utf-8-sig (byte 0xff at offset 6:"),
        (b"abc\xff", "utf-8-sig", "not valid utf-8-sig (byte 0xff at offset 3:"),
        (codecs.BOM_UTF16_LE + b"a\0b", "auto", "not valid utf-16 (byte 0x62 at offset 4:"),
        (codecs.BOM_UTF16_BE + b"\0a\xdc\0", "auto", "not valid utf-16 (byte 0xdc at offset 4:"),
        (codecs.BOM_UTF32_LE + b"a\0\0\0b", "auto", "not valid utf-32 (byte 0x62 at offset 8:"),
        ("é".encode()[:1], "utf-8", "not valid utf-8 (byte 0xc3 at offset 0:"),
        ("あ".encode("shift_jis")[:1], "shift_jis", "not valid shift_jis (byte 0x82 at offset 0:"),
        (b"ab\x81\x20", "gb18030", "not valid gb18030 (byte 0x81 at offset 2:"),
        (b"ab\xa1\x20", "big5", "not valid big5 (byte 0xa1 at offset 2:"),
        (b"\xed\xa0\x80", "utf-8", "not valid utf-8 (byte 0xed at offset 0:"),
    ],
)
def test_an_invalid_byte_is_named_with_its_offset_and_a_remedy(path, data, encoding, expected):
    write(path, data)
    for size in (1, 2, 3, encodings.PIECE):
        with piece_of(size):
            message = complaint(path, encoding=encoding)
        assert message.startswith(f"{path}: {expected}")
        assert "`encoding:`" in message
        assert "`errors: replace`" in message


@pytest.mark.parametrize(("encoding", "text", "unfit"), UNFIT)
@given(st.data())
@settings(deadline=None)
def test_an_invalid_bytes_offset_does_not_depend_on_the_size_of_pieces(
    scratch, encoding, text, unfit, data
):
    place = data.draw(st.integers(0, len(text)))
    before, after = encoded(text[:place], encoding), encoded(text[place:], encoding, go_on=True)
    write(scratch, before + unfit + after)
    with piece_of(data.draw(st.integers(1, 40) | st.just(encodings.PIECE))):
        message = complaint(scratch, encoding=encoding)
    assert f"byte 0x{unfit[0]:02x} at offset {len(before)}: " in message


@pytest.mark.parametrize(("encoding", "text", "unfit"), UNFIT)
def test_an_invalid_bytes_offset_is_right_after_megabytes(path, encoding, text, unfit):
    before = encoded(varied(text, 700_000), encoding)
    assert len(before) > 2 * encodings.PIECE
    write(path, before + unfit + encoded(text, encoding, go_on=True))
    message = complaint(path, encoding=encoding)
    assert f"byte 0x{unfit[0]:02x} at offset {len(before)}: " in message


@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, JAPANESE, FRENCH], ids=lambda text: text[:8])
@pytest.mark.parametrize("flaw", [b"\xff", b"\xe9t\xe9", b"\xed\xa0\x80"])
@pytest.mark.parametrize("size", [0, 1_000_000])
def test_an_invalid_byte_in_utf_8_is_an_error_and_not_a_guess(path, caplog, text, flaw, size):
    text = varied(text, size)
    before, after = (half.encode() for half in (text[: len(text) // 2], text[len(text) // 2 :]))
    write(path, before + flaw + after)
    message = complaint(path)
    assert f"not valid utf-8 (byte 0x{flaw[0]:02x} at offset {len(before)}:" in message
    assert caplog.text == ""


@pytest.mark.parametrize("size", [0, 1_000_000], ids=["small", "large"])
@pytest.mark.parametrize("order", [1, -1], ids=["UTF-8 first", "UTF-8 last"])
@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ENGLISH, "cp1252"),
        (FRENCH, "cp1252"),
        (GERMAN, "latin-1"),
        (SPANISH, "cp1252"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        (JAPANESE, "shift_jis"),
        (SIMPLIFIED, "gb18030"),
        (TRADITIONAL, "big5"),
        ("One café is in this text, and much else.\n" + "And so on.\n" * 90, "cp1252"),
    ],
    ids=lambda value: value[:8],
)
def test_two_encodings_in_one_file_are_an_error_where_utf_8_ends(path, text, encoding, order, size):
    text = varied(text, size)
    whole = b"".join([text.encode(), text.encode(encoding)][::order])
    with pytest.raises(UnicodeDecodeError) as error:
        whole.decode("utf-8")
    write(path, whole)
    assert (
        f"not valid utf-8 (byte 0x{whole[error.value.start]:02x} at offset {error.value.start}:"
        in (complaint(path))
    )


def test_a_single_line_of_cp1252_in_a_large_file_of_utf_8_is_an_error_with_its_offset(path):
    before = varied(FRENCH, 2_000_000).encode()
    write(path, before + "déjà\n".encode("cp1252") + before)
    assert f"byte 0xe9 at offset {len(before) + 1}:" in complaint(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_a_missing_byte_order_mark_is_an_error(path, encoding, errors):
    write(path, "plain".encode(f"{encoding}-le"))
    for size in (1, 3, encodings.PIECE):
        with piece_of(size):
            assert "does not start with BOM" in complaint(path, encoding=encoding, errors=errors)


def test_errors_replace_replaces_an_invalid_byte_by_one_character(path):
    for encoding, _, unfit in UNFIT:
        write(path, encoded("a", encoding) + unfit + encoded("b", encoding, go_on=True))
        for size in (1, 2, 3, encodings.PIECE):
            with piece_of(size):
                assert text_of(path, encoding=encoding, errors="replace") == "a\ufffdb"


def test_errors_replace_keeps_the_rest_of_a_detected_utf_8_text(path):
    text = varied(FRENCH, 1_000_000)
    half = len(text) // 2
    write(path, text[:half].encode() + b"\xff" + text[half:].encode())
    assert text_of(path, errors="replace") == text[:half] + "\ufffd" + text[half:]


# Pieces


@pytest.mark.filterwarnings("ignore:Characters .* can be encoded")  # but are others then
@pytest.mark.parametrize(
    "encoding",
    [
        *("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1", "koi8-r"),
        *("shift_jis", "euc-jp", "gb18030", "big5", "euc-kr"),
    ],
)
@given(st.data())
@settings(deadline=None)
def test_decoding_in_pieces_equals_decoding_as_a_whole(scratch, encoding, data):
    errors = data.draw(st.sampled_from(["strict", "replace"]))
    letters = st.text(st.characters(codec=encoding, exclude_categories=["Cs"]), max_size=8)
    written = letters.map(lambda text: text.encode(encoding))
    parts = data.draw(st.lists(written | st.binary(max_size=3), max_size=4))
    whole = "".encode(encoding) + b"".join(
        parts
    )  # with the byte order mark that some encodings need
    assume(not whole.startswith(tuple(COMPRESSIONS.values())))
    write(scratch, whole)
    size = data.draw(st.integers(1, 9) | st.just(encodings.PIECE))
    try:
        text, flaw = whole.decode(encoding, errors), None
    except UnicodeDecodeError as error:
        text, flaw = "", error
    with piece_of(size):
        if flaw is not None:
            # The standard library's offsets in utf-8-sig start after the mark.
            marked = encoding == "utf-8-sig" and whole.startswith(codecs.BOM_UTF8)
            start = flaw.start + 3 * (marked and len(flaw.object) < len(whole))
            message = complaint(scratch, encoding=encoding, errors=errors, format="text")
            # A piece before the flaw may have a NUL, which ends the reading.
            assert f" at offset {start}:" in message or "\0" in whole.decode(encoding, "replace")
        elif "\0" in text and errors == "strict":
            assert "binary" in complaint(scratch, encoding=encoding, errors=errors, format="text")
        elif not text:
            assert "no text" in complaint(scratch, encoding=encoding, errors=errors, format="text")
        else:
            wanted = text.replace("\0", "\ufffd")
            assert documents(scratch, encoding=encoding, errors=errors, format="text") == [wanted]


@pytest.mark.parametrize("size", [1, 3, 7, 101])
@pytest.mark.parametrize(("text", "encoding", "name"), WRITTEN)
def test_pieces_never_split_a_character(path, text, encoding, name, size):
    write(path, text.encode(encoding))
    with piece_of(size):
        assert documents(path, encoding=name) == [text]


@given(st.text("ab\r\n", min_size=1), st.integers(1, 5))
@settings(deadline=None)
def test_newlines_lf_converts_every_line_end_also_between_pieces(scratch, text, size):
    write(scratch, text)
    with piece_of(size):
        wanted = text.replace("\r\n", "\n").replace("\r", "\n")
        assert documents(scratch, newlines="lf") == [wanted]
        assert documents(scratch) == [text]


@pytest.mark.parametrize("encoding", ["utf-16", "shift_jis"])
def test_newlines_lf_applies_in_every_encoding(path, encoding):
    write(path, "一\r\n二\r三\n\r".encode(encoding))
    with piece_of(3):
        assert text_of(path, encoding=encoding, newlines="lf") == "一\n二\n三\n\n"


without_nul = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(without_nul)
@settings(deadline=None)
def test_any_text_survives_utf_8(scratch, text):
    assume(text[0] != "\ufeff")
    write(scratch, text.encode())
    assert documents(scratch) == [text]


@given(without_nul, st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
@settings(deadline=None)
def test_any_text_survives_an_encoding_with_a_byte_order_mark(scratch, text, encoding):
    write(scratch, text.encode(encoding))
    assert decided(scratch) == encoding
    assert documents(scratch) == [text]


@given(
    st.binary(),
    st.sampled_from(["auto", "utf-8", "utf-16", "cp1252", "shift_jis", "utf-7", "unicode_escape"]),
    st.sampled_from(["strict", "replace"]),
)
@settings(deadline=None)  # charset-normalizer's first guess loads its tables
def test_any_bytes_become_text_or_a_one_line_error(scratch, data, encoding, errors):
    write(scratch, data)
    text, message = "", ""
    try:
        text = text_of(scratch, encoding=encoding, errors=errors)
    except UserError as error:
        message = str(error)
    assert bool(text) != bool(message)
    assert "\n" not in message
    text.encode("utf-8")


def test_memory_use_does_not_grow_with_the_length_of_a_line(path):
    block = "海".encode() * (1 << 20)
    with open(path, "wb") as file:
        for _ in range(66):
            file.write(block)
    assert path.stat().st_size > 200_000_000
    chosen = Corpus(files=[str(path)])
    n_characters = 0
    tracemalloc.start()
    try:
        for text, _ in read_documents(path, chosen, decide_encoding(path, chosen)):
            n_characters += len(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    path.unlink()
    assert n_characters == 66 << 20
    assert peak < 20 * encodings.PIECE


# Files that aren't text


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"text and one NUL\0",
        "UTF-16 without a mark".encode("utf-16-le"),
        FRENCH.encode("cp1252") + b"\0",
        bytes(range(1, 256)) * 16,
        bytes(range(128, 256)) * 8,
        varied(ENGLISH, 1_000_000).encode() + b"\0",
        b"a" * (2 * encodings.PIECE - 1) + b"\0" + b"a" * 1_000_000,
    ],
    ids=["image", "NUL", "UTF-16", "cp1252", "all bytes", "high bytes", "NUL at the end", "border"],
)
def test_binary_data_is_rejected_without_a_guess(path, caplog, data):
    write(path, data)
    message = complaint(path)
    image = "looks like an image; remove it"
    other = "a binary file: it has zero bytes or fits no known encoding; if it is text, set"
    assert message.startswith((f"{path}: {image}", f"{path}: {other}"))
    assert caplog.text == ""


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_a_zero_byte_makes_a_text_binary_in_any_encoding_unless_replaced(path, encoding):
    write(path, "a\0b".encode(encoding))
    message = complaint(path, encoding=encoding)
    assert "a binary file" in message
    assert "`errors: replace`" in message
    assert documents(path, encoding=encoding, errors="replace") == ["a\ufffdb"]


@pytest.mark.parametrize("data", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_an_empty_text_is_an_error_with_or_without_a_byte_order_mark(tmp_path, name, data):
    path = write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    assert complaint(path).startswith(f"{path}: no text in it; add text or use another file")


def test_a_lone_surrogate_is_replaced_or_a_one_line_error(path):
    for encoding, data, message in (
        ("utf-16-le", "né".encode("utf-16-le") + b"\x00\xd8", "at offset 4:"),
        ("utf-16", codecs.BOM_UTF16_BE + b"\0n\0\xe9\xdc\0", "at offset 6:"),
        ("utf-7", b"n+AOk-+2AA-", "a lone surrogate, U+D800"),
        ("unicode_escape", rb"n\xe9\ud800", "a lone surrogate, U+D800"),
    ):
        write(path, data)
        for size in (1, 2, 3, encodings.PIECE):
            with piece_of(size):
                assert message in complaint(path, encoding=encoding)
                assert text_of(path, encoding=encoding, errors="replace") == "né\ufffd"


def test_surrogates_encoded_like_utf_8_are_invalid(path):
    for data in (b"\xed\xa0\x80", b"plain \xed\xa0\x80 text", codecs.BOM_UTF8 + b"\xed\xa0\x80"):
        write(path, data)
        assert f"byte 0xed at offset {data.index(0xED)}:" in complaint(path)
