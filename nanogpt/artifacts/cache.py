"""The cache: finished artifacts by version, so that nothing is computed twice.

An entry is a directory that holds a stage's outputs and its manifest. It appears whole, by a
rename, and is never changed, so many processes and machines can share a cache; the first entry of a
version stays. It is restored by copy, never by a link, which would share mtime, mode and every
later touch. What a version is, says manifest.py; listing and pruning is left to storage.py.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nanogpt.artifacts import manifests as manifest
from nanogpt.files.atomic import atomic_write, fsync_directory, write_json

logger = logging.getLogger(__name__)

DEFAULT = ".nanogpt/cache"
MANIFEST = "manifest.json"

# Linux: share the blocks of another file until one of them is written to. See ioctl_ficlone(2).
FICLONE = 0x40049409


class _DamagedError(Exception):
    """An entry is not what was stored; says why."""


class _UnreadableError(Exception):
    """An entry may be good, but not for this process, or not now; says why."""


def directory() -> Path | None:
    """Where the cache is: NANOGPT_CACHE, if it is set; None if that is `off`."""
    named = os.environ.get("NANOGPT_CACHE") or DEFAULT
    return None if named == "off" else Path(named)


def restore(version: str, outputs: Mapping[str, Path]) -> dict[str, Any] | None:
    """Copy a version's outputs to their places and return its manifest; None if it is not there.

    outputs: by the names that they have in the entry. A damaged entry is told in the log, removed,
    and counts as not there.
    """
    cache = directory()
    entry = cache / version if cache else None
    if entry is None or not os.path.lexists(entry):
        return None
    try:
        said = _read_manifest(entry, version)
        if said["outputs"].keys() != outputs.keys():
            raise _DamagedError("its files are not the stage's")
        for name, path in outputs.items():
            _restore_file(entry / name, path, said["outputs"][name])
    except _DamagedError as error:
        logger.warning("%s: damaged: %s; it is removed, and made again", entry, error)
        remove(entry)
        return None
    except _UnreadableError as error:
        logger.warning("%s: cannot be read: %s; its stage is run again", entry, error)
        return None
    with contextlib.suppress(OSError):  # a cache that others own
        os.utime(entry)  # the time of its last use
    return said


def _read_manifest(entry: Path, version: str) -> dict[str, Any]:
    if entry.is_symlink():
        raise _DamagedError("is a link")
    try:
        with _open(entry / MANIFEST) as file:
            said: dict[str, Any] = json.loads(file.read().decode("utf-8"))
        asked = manifest.version(said["stage"], said["parameters"], said["inputs"], said["code"])
        # All of it goes into a manifest again.
        json.dumps(said, ensure_ascii=False, allow_nan=False).encode()
        said["environment"], said["wall_seconds"], said["made_in"]
        if not all(isinstance(digest, str) for digest in said["outputs"].values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _DamagedError(f"{MANIFEST} is none") from None
    if asked != version:
        raise _DamagedError(f"its manifest is of version {asked}")
    return said


def _restore_file(source: Path, destination: Path, digest: str) -> None:
    with _open(source) as original, atomic_write(destination) as file:
        clone_or_copy(original, file)
        file.flush()
        # Of the copy, so that a fault in copying is found as well.
        with open(file.fileno(), "rb", closefd=False) as copy:
            copy.seek(0)
            found = hashlib.file_digest(copy, "sha256").hexdigest()
        if found != digest:
            raise _DamagedError(f"{source.name} has sha256 {found[:12]}, not {digest[:12]}")


def _open(path: Path) -> BinaryIO:
    """Open a file of an entry, but no link, which could lead anywhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        of_the_entry = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
        kind = _DamagedError if error.errno in of_the_entry else _UnreadableError
        raise kind(f"{path.name}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _DamagedError(f"{path.name} is no regular file")
    return open(descriptor, "rb")


def clone_or_copy(source: BinaryIO, destination: BinaryIO) -> None:
    """Copy a file; where the file system can (Btrfs, XFS), without writing its bytes."""
    try:
        fcntl.ioctl(destination.fileno(), FICLONE, source.fileno())
    except OSError:
        shutil.copyfileobj(source, destination, 1 << 20)


def store(said: Mapping[str, Any], outputs: Mapping[str, Path]) -> None:
    """Add an entry: outputs, by their names in it, and the manifest that their stage wrote.

    A cache that cannot be written to is told in the log, and no more.
    """
    cache = directory()
    if cache is None or os.path.lexists(cache / said["version"]):
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{said['version']}.") as temporary:
            entry = Path(temporary) / "entry"
            for name, path in outputs.items():
                with open(path, "rb") as original, atomic_write(entry / name) as file:
                    clone_or_copy(original, file)
            digests = {name: said["outputs"][str(path)] for name, path in outputs.items()}
            made_in = next(str(path).removesuffix(f"/{name}") for name, path in outputs.items())
            write_json(entry / MANIFEST, {**said, "outputs": digests, "made_in": made_in})
            # Fails if another process was first: that entry stays.
            entry.rename(cache / said["version"])
        fsync_directory(cache)
    except OSError as error:
        if not os.path.lexists(cache / said["version"]):
            logger.warning("%s: not stored in the cache: %s", cache, error.strerror or error)


def remove(entry: Path) -> None:
    """Remove an entry; at once for whoever looks at the same time."""
    try:
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=f".{entry.name}.") as temporary:
            entry.rename(Path(temporary) / "entry")
    except OSError as error:
        logger.warning("%s: cannot be removed: %s", entry, error.strerror or error)


def names_in_entry(outputs: Iterable[str], manifest_path: str) -> dict[str, Path]:
    """Outputs by the names that they have in an entry: as seen from where their manifest lies."""
    beside = Path(manifest_path).parent
    return {str(Path(path).relative_to(beside)): Path(path) for path in outputs}
