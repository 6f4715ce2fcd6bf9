"""The built-in corpus: an endless play whose exact entropy is known.

A demonstration of training needs a text, and a text from the network can be absent, slow or
changed. This module writes one instead: short scenes between two speakers, as long as wanted,
from a seed. Because it wrote them from a grammar, it also knows how surprising every single
character was, so that a trained model can be compared with the number that no model can beat.

The probability. A nonterminal is replaced by one of its alternatives, with probability
proportional to the weight. An alternative is a literal head followed by literals and
nonterminals, and no head of a nonterminal is a prefix of another one. So a text is read from
left to right without ever looking ahead, it has one derivation, and the probability of a
character, given all before it, is the weight of the heads that still fit after it over the
weight of those that fitted before it. A character that is forced costs nothing.

Encoding, splitting into training and validation parts, and files are left to others.
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

# A template is text with nonterminals in angle brackets: "a <plain> <noun>". What stands before
# the first bracket is the head.
Alternatives = dict[str, float]  # template -> weight
Grammar = dict[str, Alternatives]  # nonterminal -> its alternatives


def _words(text: str, then: str = "", weight: float = 1.0) -> Alternatives:
    """Equally likely words, each followed by the template `then`; "_" stands for a space."""
    return {word.replace("_", " ") + then: weight for word in text.split()}


# --- The words ------------------------------------------------------------------------------

# What makes a text that a small model learns in a minute: short words that all occur often;
# kinds of words told apart by what stands directly before them; nouns with a capital, as the
# printers of the time had them; and little to remember but who is speaking to whom.
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
THERE = "behind by in near on under with"  # these answer where something is
NEAR = f"{THERE} for from like"
PLACES = "Barn Cave Garden Inn Market Palace Ruin Tavern"
HOURS = "at_dawn at_dusk at_night at_noon in_fog in_rain in_snow in_wind"
DEAR = "dear fair good kind mad sweet"

# Every scene is between the two of a pair.
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
    """The rules of one speaker: the other one speaks, or answers what was asked, at the end."""
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

_Tail = tuple[str, ...]  # the symbols after a head, last first, as a stack wants them
_START = "<scene>"


def _split(template: str) -> tuple[str, _Tail]:
    """The head and the tail of a template; nonterminals keep their brackets."""
    head, *tail = re.split("(<[^>]*>)", template)
    return head, tuple(symbol for symbol in reversed(tail) if symbol)


def _shares(alternatives: Alternatives) -> list[float]:
    """Cumulative probabilities without the last, which is 1, so that no draw lies beyond."""
    sums = list(accumulate(alternatives.values()))
    return [partial / sums[-1] for partial in sums[:-1]]


_CHOICES = {
    f"<{name}>": (_shares(alternatives), [_split(template) for template in alternatives])
    for name, alternatives in GRAMMAR.items()
}


def write(n_characters: int, seed: int) -> str:
    """Return the first `n_characters` characters of the play of a seed, all of them ASCII.

    The same seed gives the same play everywhere, and a longer text continues a shorter one. The
    last scene is cut off where the length is reached. Raises ValueError for a negative length
    or seed.
    """
    if n_characters < 0 or seed < 0:
        raise ValueError(f"length and seed must not be negative, got {n_characters} and {seed}")
    # Python promises to keep only random() the same for a seed in all versions; the methods
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
    """The heads as a tree that branches, character by character, until one head is left."""
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
    """Return the bits that each character of a play costs, given all before it.

    The shape is (len(text),), the unit is bits per character, and the sum is -log2 of the
    probability that an endless play begins with this text. The text starts where a scene starts
    and may end anywhere. Raises ValueError, with the offset and what was expected there, for a
    text that the grammar cannot have written.
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
                # Where the text ends among several heads, all agree on what has been read.
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
    return ValueError(f"not of this play: offset {offset} has {text[offset]!r}, not {letters}")
