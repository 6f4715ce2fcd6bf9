"""The built-in corpus: the same play everywhere, with its exact probability."""

from __future__ import annotations

import hashlib
import math
import re
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from nanogpt.data import play

PLAY = play.write(100_000, 1337)


def walk(n_characters: int, seed: int) -> tuple[str, list[tuple[int, float]]]:
    """Expand the grammar recursively, recording where each choice ends and its cost in bits."""
    draw = Random(seed).random
    text = ""
    choices: list[tuple[int, float]] = []

    def expand(template: str) -> None:
        nonlocal text
        for part in re.split("(<.*?>)", template):
            if len(text) >= n_characters:
                return
            if not part.startswith("<"):
                text += part
                continue
            alternatives = play.GRAMMAR[part[1:-1]]
            total, rest = sum(alternatives.values()), draw()
            for chosen, weight in alternatives.items():  # noqa: B007
                rest -= weight / total
                if rest < 0:
                    break
            choices.append((len(text) + len(chosen.split("<")[0]), -math.log2(weight / total)))
            expand(chosen)

    while len(text) < n_characters:
        expand("<scene>")
    return text, choices


def test_no_head_is_a_prefix_of_another_of_the_same_nonterminal() -> None:
    for name, alternatives in play.GRAMMAR.items():
        # In sorted order, a prefix would come directly before a word that starts with it.
        heads = sorted(template.split("<")[0] for template in alternatives)
        for head, following in pairwise(heads):
            assert not following.startswith(head), f"{name}: {head!r} begins {following!r}"


def test_every_weight_is_positive_and_every_nonterminal_is_defined_and_used() -> None:
    used = {"scene"}
    for alternatives in play.GRAMMAR.values():
        assert alternatives
        assert all(weight > 0 for weight in alternatives.values())
        for template in alternatives:
            used.update(re.findall("<(.*?)>", template))
    assert used == set(play.GRAMMAR)


@pytest.mark.parametrize("n_characters", [0, 1, 2, 255, 256, 10_001])
def test_the_length_is_exact(n_characters: int) -> None:
    assert len(play.write(n_characters, 7)) == n_characters


def test_a_longer_play_continues_a_shorter_one() -> None:
    for n_characters in (0, 1, 50, 4_321, 99_999):
        assert play.write(n_characters, 1337) == PLAY[:n_characters]


def test_a_seed_gives_the_same_play_everywhere_and_other_seeds_differ() -> None:
    digest = hashlib.sha256(play.write(10_000, 1337).encode("ascii")).hexdigest()
    assert digest == "1fcaa07bc602382b78810310cf85f2481aedf1e8e5b40fa54c602f6c24c0ee79"
    assert play.write(10_000, 1338) != PLAY[:10_000]


def test_a_negative_length_or_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        play.write(-1, 0)
    # Random would silently use its absolute value, and two seeds would give the same play.
    with pytest.raises(ValueError, match="-2"):
        play.write(10, -2)


def test_surprisal_sums_to_the_log_probability_of_the_choices() -> None:
    text, choices = walk(20_000, 3)
    bits = play.surprisal(text)
    assert bits.shape == (len(text),)
    assert bits.dtype == np.float64
    assert bits.min() >= 0
    # The full cost of a choice is counted by the end of its head, so the sums agree there.
    paid = 0.0
    for end, cost in choices:
        paid += cost
        if end <= len(text):
            assert bits[:end].sum() == pytest.approx(paid, abs=1e-6)


def test_the_writer_chooses_with_the_described_probabilities() -> None:
    text, _ = walk(20_000, 3)
    assert play.write(20_000, 3) == text[:20_000]


def test_surprisal_of_a_cut_text_is_the_start_of_the_longer_ones() -> None:
    whole = play.surprisal(PLAY[:3_000])
    for end in range(0, 3_000, 7):
        np.testing.assert_array_equal(play.surprisal(PLAY[:end]), whole[:end])


def test_the_characters_that_can_follow_share_a_probability_of_one() -> None:
    alphabet = sorted(set(PLAY))
    for end in range(0, 2_000, 11):
        mass = 0.0
        for letter in alphabet:
            try:
                mass += 2.0 ** -play.surprisal(PLAY[:end] + letter)[-1]
            except ValueError:
                continue
        assert mass == pytest.approx(1.0, abs=1e-12), f"after {PLAY[max(0, end - 30) : end]!r}"


def test_a_play_has_the_entropy_of_its_grammar() -> None:
    # Two halves of a long text agree, so a validation split has the same entropy as the rest.
    bits = play.surprisal(PLAY)
    first, second = bits[:50_000].mean(), bits[50_000:].mean()
    assert first == pytest.approx(second, rel=0.05)
    assert 0.5 < bits.mean() < 1.5


@pytest.mark.parametrize("offset", [0, 1, 40, 777, 2_999])
def test_an_impossible_character_is_rejected_with_its_offset(offset: int) -> None:
    text = PLAY[:offset] + "#" + PLAY[offset + 1 : 3_000]
    with pytest.raises(ValueError, match=rf"offset {offset} has '#', not ") as refusal:
        play.surprisal(text)
    assert "\n" not in str(refusal.value)
    assert repr(PLAY[offset]) in str(refusal.value)


def test_an_empty_text_costs_nothing() -> None:
    assert play.surprisal("").shape == (0,)


def test_the_text_is_clean_english() -> None:
    assert PLAY.isascii()
    assert "  " not in PLAY
    assert not re.search("[<>_]", PLAY)
    assert not re.search(r"\b[Aa] [aeiouAEIOU]", PLAY)
    assert not re.search(r"\b[Aa]n [^aeiouAEIOU]", PLAY)
    assert not re.search(r"[.!?:] [a-z]", PLAY.replace("Scene: a", ""))
    assert not re.search(r" [.,!?:]", PLAY)


def test_the_two_speakers_of_a_scene_take_turns() -> None:
    for scene in PLAY.split("\n\n")[:-1]:
        entering = re.search(r"\[Enter (\w+) and (\w+)\.\]", scene)
        assert entering is not None
        speakers = re.findall(r"^(\w+): ", scene, flags=re.MULTILINE)[1:]
        expected = [entering[1 + turn % 2] for turn in range(len(speakers))]
        assert speakers == expected
