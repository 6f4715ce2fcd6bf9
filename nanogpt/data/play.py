"""The built-in corpus: an endless play whose exact entropy is known.

A training demo needs a text, and a text from the network can be missing, slow or changed. This
module generates one from a seed instead: short scenes between two speakers, of any length. They
come from a grammar, so the surprisal of every character is known exactly, and a trained model
can be compared with a loss that no model can beat.

Probabilities: a nonterminal is replaced by one of its alternatives, with a probability
proportional to the weight. An alternative is a literal head followed by literals and
nonterminals, and no head of a nonterminal is a prefix of another one. So a text can be parsed
from left to right without lookahead and has exactly one derivation. The probability of a
character, given all before it, is the weight of the heads that still match after it, divided by
the weight of the heads that matched before it. A forced character costs nothing.

This module doesn't encode, split or write files.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from itertools import accumulate, pairwise
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A template is text with nonterminals in angle brackets: "a <plain> <noun>". The text before the
# first bracket is the head.
Alternatives = dict[str, float]  # template -> weight
Grammar = dict[str, Alternatives]  # nonterminal -> its alternatives


def _words(text: str, then: str = "", weight: float = 1.0) -> Alternatives:
    """Equally likely words, each followed by the template `then`; "_" stands for a space."""
    return {word.replace("_", " ") + then: weight for word in text.split()}


# --- The words ------------------------------------------------------------------------------

# A small model learns this text in a minute because its words are short and frequent, the word
# directly before shows a word's kind, nouns are capitalised as in old prints, and there's little
# to remember except who is speaking to whom.
PLAIN = """bald big bold damp dry fat glum keen kind lame mad meek mild poor proud quiet sad shy
    slow sly smug soft sour tame vain vast vile warm wary wet wild wise"""
VOWEL = "odd ugly"  # these take "an"
HUE = "blue brass glass gold green grey iron jade red ruby tin wax"
NOUNS = """Ant Ape Axe Bat Bed Book Bun Cake Cap Cat Cow Crab Cup Dog Drum Duck Eel Egg Elk Fig Fox
    Goat Hat Hen Hog Imp Jar Jug Key Lute Map Mop Moth Nut Oar Owl Pie Pig Pot Rat Rug Toad Tub Urn
    Wig Wolf Yak"""
PEOPLE = "Abbot Aunt King Lord Niece Nun Nurse Queen Thief Uncle Vicar Widow Wife Witch"
PARTS = "Envy Faith Fate Hope Joy Love Luck Nose Pride Soul Voice Vow Wit Zeal"
DID = """ate bit cut drank drew drove dug fed felt hid hit kissed led lent lit lost loved robbed saw
    shook shot slew sold stole sued wed won wore"""
THERE = "behind by in near on under with"  # these start answers to "Where is ...?"
NEAR = f"{THERE} for from like"
PLACES = "Barn Cave Garden Inn Market Palace Ruin Tavern"
HOURS = "at_dawn at_dusk at_night at_noon in_fog in_rain in_snow in_wind"
DEAR = "dear fair good kind mad sweet"

# Every scene is between the two speakers of a pair.
PAIRS = (("Orso", "Pip"), ("Vela", "Meg"), ("Tam", "Ilka"), ("Bran", "Hob"))
_MEETINGS = [*PAIRS, *((second, first) for first, second in PAIRS)]

# --- The sentences --------------------------------------------------------------------------

_ADJECTIVE = f"{PLAIN} {VOWEL}"
_THING = _words("her his my no one our that the this thy yon", " <what>", 10.0) | {
    "a <plain> <more>": 9.0,
    "an <vowel> <more>": 1.0,
}
_STATEMENTS = {
    "I <act>": 3.0,
    "We <act>": 3.0,
    "He <act>": 2.0,
    "She <act>": 2.0,
    "They <act>": 2.0,
    "My <subject>": 3.0,
    "Thy <subject>": 3.0,
    "Our <subject>": 2.0,
    "The <subject>": 2.0,
    "Thou <what>": 4.0,
}

_COMMON: Grammar = {
    "scene": {"Scene: <place>, <hour>.\n[Enter <pair>": 1.0},
    "place": {"a <plain> <where>": 9.0, "an <vowel> <where>": 1.0},
    "where": _words(PLACES),
    "hour": _words(HOURS),
    "pair": {f"{a} and {b}.]\n<{a} greets>": 1.0 for a, b in _MEETINGS},
    "manner": _words("dancing laughing singing weeping"),
    "greeting": _words("All_hail Good_day Welcome Well_met"),
    "dear": _words(DEAR),
    "answer": _words("Ay Never No Often Once Perhaps Twice Yes"),
    "whose": _words("Her His My Our That The Thy", " <person>"),
    "there": _words(THERE.title(), " <thing>"),
    "owned": _words("her his my our that the this thy yon", " <noun>"),
    "subject": _words(PEOPLE, " <act>") | _words(PARTS, " <being>"),
    "act": _words(DID, " <thing>"),
    "being": _words("is seems was", " <like>"),
    "like": _words(_ADJECTIVE) | _THING,
    "thing": _THING,
    "what": _words(_ADJECTIVE, " <more>"),
    "more": _words(HUE, " <noun>") | _words(NOUNS, weight=0.6),
    "plain": _words(PLAIN),
    "vowel": _words(VOWEL),
    "noun": _words(NOUNS),
    "person": _words(PEOPLE),
    "did": _words(DID),
}


def _speaker(me: str, you: str) -> Grammar:
    """The rules of one speaker, which end with the other one speaking or answering."""
    stops = {
        f". <{me}>": 7.0,
        f"! <{me}>": 3.0,
        f".\n<{you} speaks>": 2.5,
        f"!\n<{you} speaks>": 1.5,
        f", <{me} adds>": 3.0,
    }
    return {
        f"{me} greets": {f"{me}: <greeting>, <dear> {you}!\n<{you} returns>": 1.0},
        f"{me} returns": {f"{me}: <greeting>, <dear> {you}! <{me}>": 1.0},
        f"{me} speaks": {f"{me}: <{me}>": 1.0},
        me: {f"{text}<{me} on>": weight for text, weight in _STATEMENTS.items()}
        | {
            f"Who <did> <owned>?\n<{you} tells who>": 1.5,
            f"Where is <owned>?\n<{you} tells where>": 1.5,
            f"Farewell, <dear> {you}.\n<{you} leaves>": 0.6,
        },
        f"{me} on": stops | {f" {near} <thing><{me} on>": 0.5 for near in NEAR.split()},
        f"{me} stops": stops,
        f"{me} adds": _words(DEAR, f" {you}.\n<{you} speaks>", 0.25)
        | _words("eh no so what", f"?\n<{you} answers>", 0.5),
        f"{me} answers": {f"{me}: <answer><{me} stops>": 1.0},
        f"{me} tells who": {f"{me}: <whose><{me} stops>": 1.0},
        f"{me} tells where": {f"{me}: <there><{me} on>": 1.0},
        f"{me} leaves": {f"{me}: Adieu, <dear> {you}.\n[Exeunt, <manner>.]\n\n": 1.0},
    }


GRAMMAR: Grammar = dict(_COMMON)
for _me, _you in _MEETINGS:
    GRAMMAR |= _speaker(_me, _you)

# --- Writing --------------------------------------------------------------------------------

_Tail = tuple[str, ...]  # the symbols after a head, in reverse order for a stack
_START = "<scene>"


def _split(template: str) -> tuple[str, _Tail]:
    """The head and the tail of a template; nonterminals keep their brackets."""
    head, *tail = re.split("(<[^>]*>)", template)
    return head, tuple(symbol for symbol in reversed(tail) if symbol)


def _shares(alternatives: Alternatives) -> list[float]:
    """Cumulative probabilities except the last, which is 1, so every draw selects something."""
    sums = list(accumulate(alternatives.values()))
    return [partial / sums[-1] for partial in sums[:-1]]


_CHOICES = {
    f"<{name}>": (_shares(alternatives), [_split(template) for template in alternatives])
    for name, alternatives in GRAMMAR.items()
}


def write(n_characters: int, seed: int) -> str:
    """Return the first `n_characters` characters of a seed's play, all ASCII.

    The same seed gives the same play everywhere, and a longer text continues a shorter one. The
    last scene is cut off at the given length. Raises ValueError for a negative length or seed.
    """
    if n_characters < 0 or seed < 0:
        raise ValueError(f"length and seed must not be negative, got {n_characters} and {seed}")
    # Python guarantees the same values for a seed in all versions only for random(). The methods
    # that choose from a list may change.
    draw = Random(seed).random
    pieces: list[str] = []
    length = 0
    stack: list[str] = []
    while length < n_characters:
        symbol = stack.pop() if stack else _START
        choice = _CHOICES.get(symbol)
        if choice is None:
            piece = symbol
        else:
            shares, alternatives = choice
            piece, tail = alternatives[bisect_right(shares, draw())]
            stack.extend(tail)
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces)[:n_characters]


# --- Reading --------------------------------------------------------------------------------

_Leaf = tuple[str, list[float], _Tail]  # head, surprisal of each of its characters, tail
_Trie = Any  # a _Leaf, or a dict from the next character to a _Trie


def _trie(alternatives: Alternatives) -> _Trie:
    """A tree of the heads that branches character by character until one head is left."""
    heads = {_split(template)[0]: weight for template, weight in alternatives.items()}
    mass: dict[str, float] = {}
    for head, weight in heads.items():
        for end in range(len(head) + 1):
            mass[head[:end]] = mass.get(head[:end], 0.0) + weight
    leaves: list[_Leaf] = []
    for template in alternatives:
        head, tail = _split(template)
        fits = [mass[head[:end]] for end in range(len(head) + 1)]
        bits = [math.log2(a / b) for a, b in pairwise(fits)]
        leaves.append((head, bits, tail))

    def grow(leaves: list[_Leaf], depth: int) -> _Trie:
        if len(leaves) == 1:
            return leaves[0]
        branches: dict[str, list[_Leaf]] = {}
        for leaf in leaves:
            branches.setdefault(leaf[0][depth], []).append(leaf)
        return {letter: grow(branch, depth + 1) for letter, branch in branches.items()}

    return grow(leaves, 0)


_TRIES = {f"<{name}>": _trie(alternatives) for name, alternatives in GRAMMAR.items()}


def surprisal(text: str) -> NDArray[np.float64]:
    """Return the surprisal of each character of a play in bits, given all before it.

    The shape is (len(text),), and the sum is -log2 of the probability that an endless play starts
    with this text. The text must start at the start of a scene and may end anywhere. Raises
    ValueError, with the offset and the expected characters, for a text that the grammar can't
    generate.
    """
    costs: list[float] = []
    stack: list[str] = []
    at, n = 0, len(text)
    while at < n:
        symbol = stack.pop() if stack else _START
        node = _TRIES.get(symbol)
        if node is None:
            head, bits, tail = symbol, [0.0] * len(symbol), ()
        else:
            depth = at
            while isinstance(node, dict):
                # If the text ends while several heads match, they all agree up to that point.
                letter = text[depth] if depth < n else next(iter(node))
                if letter not in node:
                    raise _unexpected(text, depth, list(node))
                node = node[letter]
                depth += 1
            head, bits, tail = node
            stack.extend(tail)
        if not text.startswith(head, at):
            found_here = text[at : at + len(head)]
            for depth, (letter, found) in enumerate(zip(head, found_here, strict=False), at):
                if letter != found:
                    raise _unexpected(text, depth, [letter])
        costs.extend(bits)
        at += len(head)
    return np.array(costs[:n], dtype=np.float64)


def _unexpected(text: str, offset: int, expected: list[str]) -> ValueError:
    letters = " or ".join(repr(letter) for letter in sorted(expected))
    return ValueError(f"not from this play: offset {offset} has {text[offset]!r}, not {letters}")
