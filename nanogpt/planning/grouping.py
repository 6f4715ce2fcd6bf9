"""Divide the files of a corpus into groups. One job counts a group, and one encodes it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nanogpt.config.corpora import Corpus

FEW_FILES = 16  # a group can have this many local files, however large the others are
FULL = 1 << 26  # bytes of local files
MOST_GROUPS = 1_000  # roughly, so that Snakemake stays quick


class FileGroup(NamedTuple):
    """Some files of a corpus. n_bytes: their size; 0 if they're downloaded or built in."""

    files: list[str]
    n_bytes: int


def group_files(files: Sequence[Path], corpus: Corpus) -> list[FileGroup]:
    """Divide the files of a corpus into groups, in order.

    A group of local files is full at 64 MiB, and has up to 16 files or a 16th of all files, so that
    small files need few jobs. The sizes of downloads may not be known yet, so each is a group. In a
    larger corpus, groups are larger.
    """
    sizes = [file.stat().st_size if corpus.files else 0 for file in files]
    many = max(FEW_FILES, math.ceil(len(files) / FEW_FILES))
    most = many if corpus.files else math.ceil(len(files) / MOST_GROUPS)
    full = max(FULL, sum(sizes) / MOST_GROUPS)
    groups: list[FileGroup] = []
    names: list[str] = []
    n_bytes = 0
    for file, size in zip(map(str, files), sizes, strict=True):
        if names and (len(names) == most or n_bytes >= full):
            groups.append(FileGroup(names, n_bytes))
            names, n_bytes = [], 0
        names.append(file)
        n_bytes += size
    return [*groups, FileGroup(names, n_bytes)]
