"""The cache: finished artifacts by version, so that nothing is computed twice.

An entry is a directory with a stage's outputs and its manifest. It's created atomically, by a
rename, and never changes, so many processes and machines can share a cache. If two create the same
version, the first entry stays. Entries are restored as copies, because a link would share mtime,
mode and later edits. manifests.py computes versions; cli/pruning.py lists and prunes entries.
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
from typing import BinaryIO

from nanogpt.artifacts.manifests import version_of
from nanogpt.artifacts.records.base import FormatError, write_record
from nanogpt.artifacts.records.manifests import CacheEntry, Manifest
from nanogpt.errors import UserError
from nanogpt.files.atomic import atomic_write, fsync_directory
from nanogpt.project import Project

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"

# The Linux ioctl that shares another file's blocks, copy on write. See ioctl_ficlone(2).
FICLONE = 0x40049409


class _DamagedError(Exception):
    """An entry isn't what was stored, with the reason."""


class _UnreadableError(Exception):
    """An entry may be intact, but this process can't read it (now), with the reason."""


def restore(project: Project, version: str, outputs: Mapping[str, str]) -> CacheEntry | None:
    """Copy a version's outputs to their paths and return its manifest; None if it isn't cached.

    outputs: paths relative to the project's root, by their names in the entry. A damaged entry is
    logged, deleted and treated as missing.
    """
    cache = project.cache
    entry = cache / version if cache else None
    if entry is None or not os.path.lexists(entry):
        return None
    try:
        manifest = _read_manifest(entry, version)
        if manifest.outputs.keys() != outputs.keys():
            raise _DamagedError("it has other files than the stage's outputs")
        for name, path in outputs.items():
            _restore_file(entry / name, project.root / path, manifest.outputs[name])
    except _DamagedError as error:
        logger.warning("%s: damaged: %s; deleting it and running its stage again", entry, error)
        remove(entry)
        return None
    except _UnreadableError as error:
        logger.warning("%s: can't be read: %s; running its stage again", entry, error)
        return None
    with contextlib.suppress(OSError):  # the cache may belong to another user
        os.utime(entry)  # records when the entry was last used
    return manifest


def _read_manifest(entry: Path, version: str) -> CacheEntry:
    if entry.is_symlink():
        raise _DamagedError("it's a link")
    try:
        with _open(entry / MANIFEST) as file:
            content = json.loads(file.read().decode("utf-8"))
        # Fails for NaN and lone surrogates, which couldn't be written to a manifest again.
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
        manifest = CacheEntry.parse(content, MANIFEST, "delete it")
    except FormatError as error:
        raise _UnreadableError(str(error)) from None
    except (UserError, ValueError, RecursionError):
        raise _DamagedError(f"{MANIFEST} isn't a manifest") from None
    if version_of(manifest) != version:
        raise _DamagedError(f"its manifest belongs to version {version_of(manifest)}")
    return manifest


def _restore_file(source: Path, destination: Path, digest: str) -> None:
    with _open(source) as original, atomic_write(destination) as file:
        clone_or_copy(original, file)
        file.flush()
        # Hashes the copy, to detect errors in copying too.
        with open(file.fileno(), "rb", closefd=False) as copy:
            copy.seek(0)
            found = hashlib.file_digest(copy, "sha256").hexdigest()
        if found != digest:
            raise _DamagedError(
                f"{source.name} has the wrong sha256: expected {digest[:12]}, found {found[:12]}"
            )


def _open(path: Path) -> BinaryIO:
    """Open a file of an entry, but not a link, which could point anywhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        of_the_entry = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
        kind = _DamagedError if error.errno in of_the_entry else _UnreadableError
        raise kind(f"{path.name}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _DamagedError(f"{path.name} isn't a regular file")
    return open(descriptor, "rb")


def clone_or_copy(source: BinaryIO, destination: BinaryIO) -> None:
    """Copy a file, without writing its bytes if the file system supports that (Btrfs, XFS)."""
    try:
        fcntl.ioctl(destination.fileno(), FICLONE, source.fileno())
    except OSError:
        shutil.copyfileobj(source, destination, 1 << 20)


def store(project: Project, manifest: Manifest, outputs: Mapping[str, str]) -> None:
    """Add an entry: a manifest and its outputs, by their names in the entry.

    A cache that can't be written to is logged, and the stage continues.
    """
    cache = project.cache
    if cache is None or os.path.lexists(cache / manifest.version):
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{manifest.version}.") as temporary:
            entry = Path(temporary) / "entry"
            for name, path in outputs.items():
                source = project.root / path
                with open(source, "rb") as original, atomic_write(entry / name) as file:
                    clone_or_copy(original, file)
            digests = {name: manifest.outputs[path] for name, path in outputs.items()}
            made_in = next(path.removesuffix(f"/{name}") for name, path in outputs.items())
            content = {**manifest.content(), "outputs": digests, "made_in": made_in}
            write_record(entry / MANIFEST, CacheEntry.model_validate(content))
            # Fails if another process was faster. Then its entry stays.
            entry.rename(cache / manifest.version)
        fsync_directory(cache)
    except OSError as error:
        if not os.path.lexists(cache / manifest.version):
            logger.warning("%s: not stored in the cache: %s", cache, error.strerror or error)


def remove(entry: Path) -> None:
    """Remove an entry, atomically for other processes."""
    try:
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=f".{entry.name}.") as temporary:
            entry.rename(Path(temporary) / "entry")
    except OSError as error:
        logger.warning("%s: can't be deleted: %s", entry, error.strerror or error)


def names_in_entry(outputs: Iterable[str], manifest_path: str) -> dict[str, str]:
    """Outputs by their names in an entry, which are relative to their manifest's directory."""
    beside = Path(manifest_path).parent
    return {str(Path(path).relative_to(beside)): path for path in outputs}
