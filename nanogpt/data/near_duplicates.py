"""Find documents that are almost the same, by MinHash.

A document is seen as the set of its shingles: all five-word sequences. The similarity of two
documents is the size of the intersection of their sets, divided by that of the union. MinHash
computes 112 numbers from a set, and each is equal for two documents with a probability that is
their similarity s. The numbers are cut into 14 bands of 8. Documents that have a whole band in
common count as near-duplicates, with probability 1 - (1 - s^8)^14: 0.05 for s = 0.5, 0.77 for
s = 0.75 and 0.9996 for s = 0.9. These are the numbers of FineWeb (https://arxiv.org/abs/2406.17557).
"""

import hashlib
import re
import zlib
from collections.abc import Callable
from functools import cache
from operator import getitem
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_BANDS = 14
N_ROWS = 8  # numbers in a band
SHINGLE = 5  # words
BATCH = 1 << 9  # shingles whose 112 numbers are computed at once, in 0.2 MB
CHUNK = 1 << 8  # documents whose buckets are looked at together

# Chinese and Japanese have no spaces between words, so each character is taken as one.
WITHOUT_SPACES = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{WITHOUT_SPACES}]|[^\W{WITHOUT_SPACES}]+")

Keys = NDArray[np.uint64]


class Signature:
    """The bands of one document, whose text comes in parts that don't cut words."""

    def __init__(self) -> None:
        self._min_hash = _empty_min_hash().copy()
        self._last_words: list[bytes] = []
        self._n_shingles = 0

    def update(self, text: str) -> None:
        """Add the next part of the text."""
        words = self._last_words + " ".join(WORD.findall(text.lower())).encode("utf-8").split()
        runs = zip(*(words[n:] for n in range(SHINGLE)), strict=False)  # the last are shorter
        self._add(list(map(b" ".join, runs)))
        self._last_words = words[1 - SHINGLE :]

    def bands(self, digest: bytes) -> list[int]:
        """A number for each band, after the last part. digest: of the text."""
        if not self._n_shingles and self._last_words:
            self._add([b" ".join(self._last_words)])
        if not self._n_shingles:  # without words, only the same text is a duplicate
            self._min_hash.update(digest)
        bands = self._min_hash.hashvalues.astype("<u4").reshape(N_BANDS, N_ROWS)
        return [
            int.from_bytes(hashlib.blake2b(band.tobytes(), digest_size=8).digest(), "little")
            for band in bands
        ]

    def _add(self, shingles: list[bytes]) -> None:
        self._n_shingles += len(shingles)
        for start in range(0, len(shingles), BATCH):
            self._min_hash.update_batch(shingles[start : start + BATCH])


@cache
def _empty_min_hash() -> Any:
    from datasketch import MinHash  # imports scipy, which only this setting needs

    return MinHash(N_BANDS * N_ROWS, seed=1, scheme="affine32", hashfunc=zlib.crc32)


def find_near_duplicates(n_documents: int, band: Callable[[int], Keys]) -> NDArray[np.bool_]:
    """Mark the documents that are near-duplicates of an earlier one that isn't marked.

    band: returns one of the bands of all documents.
    """
    # A bucket has the documents with the same key in a band. A document that shares a key with no
    # other one is in bucket 0. With 4 bytes for each, any input needs the same memory.
    buckets = np.zeros((N_BANDS, n_documents), dtype=np.uint32)
    taken = []  # for each band, whether a bucket has a document that stays
    for number in range(N_BANDS):
        n_buckets = _find_buckets(band(number), buckets[number])
        taken.append(bytearray(1 + n_buckets))
    marked = np.zeros(n_documents, dtype=np.bool_)
    for start in range(0, n_documents, CHUNK):
        part = buckets[:, start : start + CHUNK]
        shared = np.flatnonzero(part.any(axis=0))
        for document, own in zip(shared.tolist(), part[:, shared].T.tolist(), strict=True):
            if any(map(getitem, taken, own)):
                marked[start + document] = True
            else:
                for of_band, bucket in zip(taken, own, strict=True):
                    of_band[bucket] = bucket > 0
    return marked


def _find_buckets(keys: Keys, buckets: NDArray[np.uint32]) -> int:
    """Number the keys that occur several times from 1 on, and return how many there are.

    buckets: gets the number of each document's key; it's zero before.
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = np.zeros(len(keys) + 1, dtype=np.bool_)  # as the key before; at the end, no key follows
    same[1:-1] = keys[1:] == keys[:-1]
    del keys
    first = ~same[:-1] & same[1:]
    numbers = np.cumsum(first, dtype=np.uint32)
    n_buckets = int(numbers[-1]) if len(numbers) else 0
    numbers *= first | same[:-1]
    buckets[order] = numbers
    return n_buckets
