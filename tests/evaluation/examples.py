"""A made-up vocabulary with 11 tokens, and byte pairs, for tests of statistics over tokens."""

import numpy as np

from nanogpt.data.byte_pairs import train_byte_pairs
from nanogpt.evaluation.symbols import Symbols

BYTES = np.array([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3])
CHARACTERS = np.array([1, 1, 1, 1, 0, 2, 1, 1, 1, 0, 1])
KIND_OF_ID = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 5, 5])
SYMBOLS = Symbols(np.stack([np.ones(11, dtype=int), BYTES, CHARACTERS], axis=1), KIND_OF_ID)

TEXT = "the cat sat on the mat, the rat sat on the cat. " * 20
BYTE_PAIRS = train_byte_pairs([TEXT], 262, threads=1)
