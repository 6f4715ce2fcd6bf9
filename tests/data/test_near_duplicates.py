"""MinHash finds documents that share most of their five-word sequences."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.data.near_duplicates import (
    N_BANDS,
    N_ROWS,
    SHINGLE,
    WORD,
    Signature,
    find_near_duplicates,
)

WORDS = [f"word{number}" for number in range(1000)]


def bands(*parts):
    signature = Signature()
    for part in parts:
        signature.update(part)
    return signature.bands("".join(parts).encode())


def are_near(one, other):
    return any(a == b for a, b in zip(bands(one), bands(other), strict=True))


def similarity(one, other):
    """The share of common shingles, computed without MinHash."""
    sets = []
    for text in (one, other):
        words = WORD.findall(text.lower())
        sets.append({tuple(words[n : n + SHINGLE]) for n in range(len(words) - SHINGLE + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize(("n_changed", "n_pairs"), [(3, 60), (12, 200), (25, 200)])
def test_pairs_are_found_as_often_as_their_similarity_predicts(n_changed, n_pairs):
    source = random.Random(n_changed)
    found = expected = variance = 0.0
    for _ in range(n_pairs):
        words = source.choices(WORDS, k=300)
        other = list(words)
        for place in source.sample(range(300), n_changed):
            other[place] = f"changed{source.random()}"
        one, other = " ".join(words), " ".join(other)
        chance = 1 - (1 - similarity(one, other) ** N_ROWS) ** N_BANDS
        found += are_near(one, other)
        expected += chance
        variance += chance * (1 - chance)
    assert abs(found - expected) < 4 * variance**0.5 + 1


def test_case_punctuation_and_spaces_do_not_count():
    one = "It was a bright cold day in April, and the clocks were striking thirteen."
    assert bands(one) == bands(one.upper().replace(" ", "\n  ").replace(",", " --"))


def test_texts_shorter_than_a_shingle_are_compared_as_a_whole():
    assert bands("Read more") == bands("read more!")
    assert not are_near("Read more", "Read less")


def test_texts_without_words_are_near_only_if_equal():
    assert bands("***\n***") == bands("***\n***")
    assert not are_near("***", "---")
    assert not are_near("***", "\U0001f600")


def test_languages_without_spaces_are_compared_by_character():
    text = "昨天下午我们一起去图书馆看书外面下着小雨晚上回家以后妈妈做了一桌好菜大家都吃得很高兴"
    other = "きのうは朝から雨が降っていたので家で本を読みました夕方になって雨がやみ"
    assert are_near(text, text.replace("高兴", "开心"))
    assert not are_near(text, other)


@given(st.lists(st.sampled_from(["a b ", "c\n", "dé f ", "雨 ", "g h i j k l "]), max_size=20))
def test_a_text_in_parts_has_the_same_bands(parts):
    assert bands(*parts) == bands("".join(parts))


def test_bands_are_the_same_on_every_machine():
    # Computed once. Groups of one dataset can be read by different machines.
    assert bands("The quick brown fox jumps over the lazy dog.")[:2] == GOLDEN


GOLDEN = [9642649290485897138, 11276761891248231601]


def marked(rows):
    keys = np.array(rows, dtype=np.uint64)
    return find_near_duplicates(len(rows), lambda number: keys[:, number]).tolist()


def own_keys(n_documents):
    return np.arange(n_documents * N_BANDS, dtype=np.uint64).reshape(n_documents, N_BANDS)


def test_documents_without_a_common_band_stay():
    assert marked(own_keys(5)) == [False] * 5


def test_a_document_that_is_near_only_to_one_left_out_stays():
    keys = own_keys(4)
    keys[1, 3] = keys[0, 3]  # 1 is near 0, and 2 is near 1 but not 0
    keys[2, 5] = keys[1, 5]
    keys[3, 13] = keys[2, 13]
    assert marked(keys) == [False, True, False, True]


@given(st.lists(st.lists(st.integers(0, 6), min_size=N_BANDS, max_size=N_BANDS), max_size=12))
def test_each_document_left_out_is_near_an_earlier_one_that_stays(rows):
    # Few buckets, so most documents share some. Compare with a plain loop.
    rows = [[key if key else 100 + n for key in row] for n, row in enumerate(rows)]
    left_out = []
    for n, row in enumerate(rows):
        stay = (rows[m] for m in range(n) if not left_out[m])
        left_out.append(any(a == b for one in stay for a, b in zip(one, row, strict=True)))
    assert marked(np.array(rows).reshape(len(rows), N_BANDS)) == left_out
