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
from itertools import accumulate
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

PLAIN = """bald bent blind bold brave brisk calm cheap coy crisp cruel damp deaf drunk dull dusty
    fat foul frail fresh glad glum grim holy jolly keen lame lazy lean lewd lost loud mad meek
    merry mild mute naked noble pale plump poor proud quaint quick rare rude rusty sad salty
    shy silly sleepy slow sly smug sour stale stout sweet tame tender tipsy vain vast weary wet
    wild wise young"""
VOWEL = "ancient angry eager empty idle itchy odd old ugly upright"  # these take "an"
NOUNS = """ape bat bear beetle bell boat book boot broom bull cake candle cat chair cheese
    clock coin cow crab crow cup dog door dove drum duck eel egg fiddle fig fish flea flute
    fox frog ghost glove goat goose hat hawk hen hog horn horse jug kettle key lamb lamp leek lute
    mask mole moon moth mule nail newt nut oar onion owl pear pie pig pot purse quill rat ring
    rose rug shoe sheep snail spoon sock swan sword toad tub turnip urn wasp wig wolf worm"""
PEOPLE = """abbot aunt baker barber bishop brother butcher butler cousin doctor father friar gaoler
    hangman judge king lawyer miller monk mother nephew nun nurse page pirate priest queen sister
    squire tailor tutor uncle wife witch"""
PARTS = """ambition beard belly brain conscience courage despair ear fate fortune grief heart
    honour hope joy love luck memory nose oath pride reason shame soul spleen temper tongue
    virtue voice wit youth"""
DO = """bake bite bless boil borrow burn bury buy catch chase curse dread drop drown eat fetch find
    follow forget free haunt hide hold hunt kick kiss lick lose marry mock mourn obey paint pawn
    praise rob salt save seek sell serve shun smell starve steal teach tickle toast trust wake
    wash watch weigh woo"""
DID = """ate baked bit blessed boiled bought broke buried burnt caught chased cursed dreaded
    dropped drowned feared fetched fought found freed haunted heard hid hunted kicked kissed knew
    licked lost loved married met mocked mourned obeyed painted pawned praised robbed saw
    served shot shunned sold stole struck taught tickled toasted took trusted washed watched woke
    wooed wore"""
NEAR = "behind beside beyond by for from in like near past under with"
PLACES = """abbey attic barn brewery castle cave cellar chapel crypt dungeon forest garden harbour
    heath hut inn kitchen market meadow orchard palace prison ruin stable street tavern tomb
    wharf"""
HOURS = """at_dawn at_dusk at_midnight at_noon by_candlelight by_moonlight in_fog in_rain in_snow
    in_thunder"""
DEAR = "brave cruel dear fair fond gentle good honest kind mad noble poor proud sweet wise worthy"

# Every scene is between the two of a pair; each goes by a name and by a title.
PAIRS = (
    (("Orso", "duke"), ("Pip", "fool")),
    (("Vella", "lady"), ("Madge", "maid")),
    (("Garron", "captain"), ("Hob", "cook")),
    (("Tam", "suitor"), ("Ilka", "widow")),
    (("Quill", "poet"), ("Jess", "hostess")),
)

# --- The sentences --------------------------------------------------------------------------

_ADJECTIVE = _words(PLAIN) | _words(VOWEL)
_THING = _words("her his my one our that the this thy yon", " <adj> <noun>", 10.0) | {
    "a <plain> <noun>": 9.0,
    "an <vowel> <noun>": 1.0,
}

_STATEMENTS = {
    "I <act>": 4.0,
    "We <act>": 3.0,
    "He <act>": 2.0,
    "She <act>": 2.0,
    "They <act>": 2.0,
    "My <subject>": 3.0,
    "Thy <subject>": 3.0,
    "Our <subject>": 2.0,
    "The <person> <act>": 2.0,
    "Thou <thou>": 3.0,
    "Let us <do> <thing>": 2.0,
}
_QUESTIONS = {
    "Wilt thou <do> <thing>": 2.0,
    "Didst thou <do> <thing>": 2.0,
    "Must I <do> <thing>": 2.0,
}

_COMMON: Grammar = {
    "scene": {"SCENE: <place>, <hour>.\n[Enter <pair>": 1.0},
    "place": {"a <plain> <where>": 9.0, "an <vowel> <where>": 1.0},
    "where": _words(PLACES),
    "hour": _words(HOURS),
    "pair": {f"{a} and {b}.]\n<{a} greets>": 1.0 for (a, _), (b, _) in PAIRS},
    "plain": _words(PLAIN),
    "vowel": _words(VOWEL),
    "adj": _ADJECTIVE,
    "noun": _words(NOUNS),
    "person": _words(PEOPLE),
    "do": _words(DO),
    "dear": _words(DEAR),
    "thing": _THING,
    "act": _words(DID, " <thing>")
    | _words("can could may might must shall should would", " <do> <thing>", 4.0),
    "subject": _words(PEOPLE, " <act>") | _words(PARTS, " <being>"),
    "being": {"is <like>": 3.0, "was <like>": 3.0, "seems <like>": 2.0},
    "like": _ADJECTIVE | _THING,
    "thou": _words(PLAIN, ", <adj> <noun>")
    | _words(VOWEL, ", <adj> <noun>")
    | _words("art", " <like>", 50.0)
    | _words("shalt canst", " <do> <thing>", 20.0),
    "greeting": _words("All_hail Good_day Good_evening Good_morrow Welcome Well_met"),
    "answer": _words("Alas,_no Always Ay Nay Never No Often Once Perhaps Twice Yes"),
    "whom": _words("Her His My Our That Thy", " <person>"),
    "where is it": _words(NEAR.title(), " <thing>"),
    "farewell": _words("Adieu Farewell Goodbye"),
    "manner": _words("dancing laughing limping sighing singing weeping whistling yawning"),
}


def _speaker(me: str, title: str, you: str) -> Grammar:
    """The rules of one speaker, who talks to one other and then lets the other talk."""
    label = me.upper()
    stops = {
        f". <{me}>": 5.0,
        f"! <{me}>": 2.0,
        f".\n<{you} speaks>": 4.0,
        f"!\n<{you} speaks>": 2.0,
        f", <dear> <{you}'s name>.\n<{you} speaks>": 2.0,
    }
    return {
        f"{me}'s name": {me: 1.0, title: 1.0},
        f"{me} greets": {f"{label}: <greeting>, <dear> <{you}'s name>!\n<{you} returns>": 1.0},
        f"{me} returns": {f"{label}: <greeting>, <dear> <{you}'s name>! <{me}>": 1.0},
        f"{me} speaks": {f"{label}: <{me}>": 1.0},
        me: {f"{text}<{me} on>": weight for text, weight in _STATEMENTS.items()}
        | {f"{text}<{me} asks>": weight for text, weight in _QUESTIONS.items()}
        | {
            f"Who <act>?\n<{you} tells who>": 2.0,
            f"Where is <thing>?\n<{you} tells where>": 2.0,
            f"Farewell, <dear> <{you}'s name>.\n<{you} leaves>": 1.5,
        },
        f"{me} on": stops
        | {f" {near} <thing><{me} stops>": 0.6 for near in NEAR.split()}
        | {f" and <act><{me} on>": 1.5},
        f"{me} stops": stops,
        f"{me} asks": {
            f"?\n<{you} answers>": 2.0,
            f", <dear> <{you}'s name>?\n<{you} answers>": 1.0,
        },
        f"{me} answers": {f"{label}: <answer><{me} stops>": 1.0},
        f"{me} tells who": {f"{label}: <whom><{me} stops>": 1.0},
        f"{me} tells where": {f"{label}: <where is it><{me} stops>": 1.0},
        f"{me} leaves": {
            f"{label}: <farewell>, <dear> <{you}'s name>.\n[Exeunt, <manner>.]\n\n": 1.0
        },
    }


GRAMMAR: Grammar = dict(_COMMON)
for (_a, _a_title), (_b, _b_title) in PAIRS:
    GRAMMAR |= _speaker(_a, _a_title, _b) | _speaker(_b, _b_title, _a)

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
        bits = [math.log2(a / b) for a, b in zip(fits[:-1], fits[1:], strict=True)]
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
            for depth, (letter, found) in enumerate(zip(head, text[at:]), at):
                if letter != found:
                    raise _unexpected(text, depth, [letter])
        costs.extend(bits)
        at += len(head)
    return np.array(costs[:n], dtype=np.float64)


def _unexpected(text: str, offset: int, expected: list[str]) -> ValueError:
    letters = " or ".join(repr(letter) for letter in sorted(expected))
    return ValueError(f"not of this play: offset {offset} has {text[offset]!r}, not {letters}")
