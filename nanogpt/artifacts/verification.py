"""Verify many manifests: files are read in parallel, and again only if they may have changed.

The digest of each file that was read is recorded in .nanogpt/verified.json, with the file's size,
dates and inode. If these are the same later, the file isn't read again. The record is a cache:
without it, all files are read. A check of the whole project drops other files.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from nanogpt.artifacts.manifests import Problem, find_manifests, verify
from nanogpt.files.atomic import atomic_write, sha256_file
from nanogpt.project import Project

# A file that changed this recently, in nanoseconds, could change again without another date.
RECENT = 2_000_000_000

# How many files are read at once. A file server needs more than there are processors.
READERS = max(8, os.cpu_count() or 1)


class Stamp(NamedTuple):
    """What changes if a file does; dates in nanoseconds. Programs can set `modified`, but not
    `changed`, which is the date of the last change of the file or of its properties."""

    size: int
    modified: int
    changed: int
    inode: int


class Reading(NamedTuple):
    """The digest of a file, and the file's stamp before it was read."""

    stamp: Stamp
    digest: str


_READINGS = TypeAdapter(dict[str, Reading])


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    n_read: how many files were read. n_unchanged: how many weren't, because they haven't changed
    since an earlier verification.
    """

    manifests: list[Path]
    problems: list[Problem]
    n_read: int
    n_unchanged: int


def verify_files(project: Project, paths: Iterable[Path], read_all: bool = False) -> Verification:
    """Check the manifests at or below some paths, and those of their inputs.

    read_all: whether to also read files that haven't changed since an earlier verification.
    """
    paths = list(paths)
    manifests = find_manifests(project, paths)
    expected: dict[str, set[str]] = {}
    for manifest in filter(None, manifests.values()):
        for file, digest in (*manifest.inputs.items(), *manifest.outputs.items()):
            expected.setdefault(file, set()).add(digest)
    record = _load_record(project)
    usable = {} if read_all else dict(record)
    readings: dict[str, Reading] = {}
    started = time.time_ns()
    try:
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(partial(_read, project, usable), expected)
            for file, reading in zip(expected, found, strict=True):
                record.pop(file, None)
                if reading is None:
                    continue
                readings[file] = reading
                if reading.digest in expected[file] and _is_settled(reading.stamp, started):
                    record[file] = reading
        if {project.results, project.resources} <= set(paths):
            record = {file: reading for file, reading in record.items() if file in readings}
    finally:  # also after Ctrl-C
        _save_record(project, record)
    digests = {file: reading.digest for file, reading in readings.items()}
    problems = {problem for path in manifests for problem in verify(project, path, digests)}
    n_unchanged = sum(usable.get(file) is reading for file, reading in readings.items())
    n_read = len(readings) - n_unchanged
    return Verification(list(manifests), sorted(problems, key=str), n_read, n_unchanged)


def _read(project: Project, usable: dict[str, Reading], file: str) -> Reading | None:
    """Return a file's digest, read or recorded; None if it can't be read (`verify` reports it)."""
    path = project.root / file
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        stamp = Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        if file in usable and usable[file].stamp == stamp:
            return usable[file]
        return Reading(stamp, sha256_file(path))
    except (OSError, ValueError):
        return None


def _is_settled(stamp: Stamp, now: int) -> bool:
    """Whether a change after `now` would give the file another date."""
    return max(stamp.modified, stamp.changed) < now - RECENT


def _load_record(project: Project) -> dict[str, Reading]:
    try:
        return _READINGS.validate_json(project.verified.read_bytes())
    except (OSError, ValidationError):
        return {}


def _save_record(project: Project, record: dict[str, Reading]) -> None:
    with contextlib.suppress(OSError), atomic_write(project.verified) as file:
        file.write(_READINGS.dump_json(record))  # not in a directory that can't be written
