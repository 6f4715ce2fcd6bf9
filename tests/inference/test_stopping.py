"""Text is shown as soon as it's certain, and ends before a stop string."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanogpt.inference.stopping import TextPieces


def pieces_of(data, stop=()):
    """Return the text shown after each byte and at the end, and whether a stop string was found."""
    text = TextPieces(lambda byte: bytes([byte]), stop)
    shown = []
    for byte in data:
        shown.append(text.add(byte))
        if text.stopped:
            return shown, True
    return [*shown, text.rest()], False


def test_a_character_comes_with_its_last_byte():
    assert pieces_of("aÉ🎭".encode())[0] == ["a", "", "É", "", "", "", "🎭", ""]


def test_a_character_cut_in_two_is_replaced_at_the_end():
    assert pieces_of("a🎭".encode()[:-1])[0] == ["a", "", "", "", "�"]


def test_a_possible_stop_string_is_held_back():
    shown, stopped = pieces_of(b"one\n\ntwo", ["\n\nthree"])
    assert shown == ["o", "n", "e", "", "", "", "\n\ntw", "o", ""]
    assert not stopped


def test_the_text_ends_before_a_stop_string():
    shown, stopped = pieces_of(b"to be or not", ["or"])
    assert shown == ["t", "", "o ", "b", "e", " ", "", ""]
    assert stopped


def test_a_text_ending_with_part_of_a_stop_string_is_complete():
    shown, stopped = pieces_of(b"to be o", ["or"])
    assert ("".join(shown), stopped) == ("to be o", False)


@given(
    text=st.text("ab🎭", max_size=30),
    stop=st.lists(st.text("ab🎭", min_size=1, max_size=4), max_size=3),
)
def test_the_first_complete_stop_string_ends_the_text(text, stop):
    shown, stopped = pieces_of(text.encode(), stop)
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    if not ends:
        assert ("".join(shown), stopped) == (text, False)
        return
    first = min(ends)[0]
    assert stopped
    assert "".join(shown) == text[: min(start for end, start in ends if end == first)]


@pytest.mark.parametrize("cut", range(1, 9))
def test_tokens_of_several_characters_give_the_same_text(cut):
    text, stop = "the cat sat on the mat", ["at o"]
    pieces = TextPieces(lambda n: text[n * cut : (n + 1) * cut].encode(), stop)
    shown = ""
    for n in range(len(text)):
        shown += pieces.add(n)
        if pieces.stopped:
            break
    assert shown == "the cat s"


@given(
    text=st.text("ab🎭", max_size=20),
    stop=st.lists(st.text("ab🎭", min_size=1, max_size=4), max_size=3),
    cuts=st.sets(st.integers(0, 80)),
)
@example(text="aba", stop=["b", "aba"], cuts=set())
def test_the_split_into_tokens_changes_nothing(text, stop, cuts):
    whole = text.encode()
    ends = sorted({0, len(whole)} | {cut for cut in cuts if cut < len(whole)})
    tokens = [whole[start:end] for start, end in pairwise(ends)]
    pieces = TextPieces(tokens.__getitem__, stop)
    shown = ""
    for number in range(len(tokens)):
        shown += pieces.add(number)
        if pieces.stopped:
            break
    else:
        shown += pieces.rest()
    by_byte, stopped = pieces_of(whole, stop)
    assert (shown, pieces.stopped) == ("".join(by_byte), stopped)
