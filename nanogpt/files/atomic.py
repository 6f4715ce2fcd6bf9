"""Write files atomically, and hash them.

Every result is written with `atomic_write`. Only logs, and the metrics of a running training, grow
in place. This module knows nothing about the files' contents.
"""

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

# The longest file name that all common file systems allow.
NAME_BYTES = 255


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears at `path` only if the block ends without an error.

    It's written under a temporary name in the same directory, fsynced, then renamed. A reader sees
    either the old file or the new one. A failure keeps the old file and removes the temporary one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=_temporary_prefix(path), suffix=".tmp"
        )
    except OSError as error:
        error.filename = str(path)  # the temporary name means nothing to a user
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def put_in_place(temporary: str | Path, path: Path) -> None:
    """Rename a file that's written and fsynced to `path`, in the same directory, durably."""
    # mkstemp creates files that only the owner can read, but others may read results.
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)
    fsync_directory(path.parent)


def remove_temporaries(path: str | Path) -> None:
    """Remove the temporary files of killed writers of `path`."""
    path = Path(path)
    for temporary in path.parent.glob(f"{glob.escape(_temporary_prefix(path))}*.tmp"):
        temporary.unlink(missing_ok=True)


def _temporary_prefix(path: Path) -> str:
    """The prefix of temporary file names for `path`; random letters and `.tmp` follow."""
    return f".{fit_name(path.name, NAME_BYTES - len('..12345678.tmp'))}."


def fit_name(name: str, limit: int = NAME_BYTES) -> str:
    """Shorten a name to at most `limit` bytes: `name` itself, or its start and a digest of it."""
    encoded = os.fsencode(name)
    if len(encoded) <= limit:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: limit - 17].decode(errors='ignore')}.{digest}"


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` as readable JSON, atomically. ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file. ValueError if it isn't JSON or is nested too deeply."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    # The only portable way to read the umask is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fsync_directory(directory: Path) -> None:
    """Make a directory's entries durable, as fsync does for a file's bytes."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
