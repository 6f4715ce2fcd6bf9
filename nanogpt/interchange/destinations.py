"""Write exports and imports: whole directories, atomically, without overwriting other files.

Each directory written here has a mark, which lists its files. Only such a directory or an empty
one is replaced.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nanogpt.artifacts.records.base import Record, read_record, write_record
from nanogpt.errors import UserError, shorten
from nanogpt.files.atomic import NAME_BYTES, fit_name

EXPORT_MARK = "export.json"
IMPORT_MARK = "import.json"


class Mark(Record):
    """export.json or import.json: the source of a directory.

    kind: huggingface, nanogpt or gguf. source: the name of the exported model, or the imported
    path or name. sha256: of the exported weights. files: all other files in the directory.
    """

    kind: str
    source: str
    sha256: str | None = None
    files: tuple[str, ...] = ()


def check_directory(destination: Path, mark_name: str) -> None:
    """Raise UserError if a destination exists and isn't an earlier export or import."""
    if not destination.exists():
        return
    if not destination.is_dir():
        raise UserError(f"{destination}: a file, not a directory; name another directory")
    earlier: set[str] = set()
    if (destination / mark_name).exists():
        mark = read_record(destination / mark_name, Mark, "name another directory")
        earlier = {mark_name, *mark.files}
    other = next((path for path in _list_files(destination) if path not in earlier), None)
    if other is not None:
        what = mark_name.removesuffix(".json")
        raise UserError(
            f"{destination}: not empty, and `{shorten(other)}` isn't from an earlier {what};"
            " name another directory"
        )


@contextmanager
def whole_directory(destination: Path, mark_name: str, mark: Mark) -> Iterator[Path]:
    """Yield a temporary directory that replaces `destination` if the block ends without an error.

    mark: without the list of files, which is added.

    Errors: UserError for a destination that has other files or can't be created.
    """
    check_directory(destination, mark_name)
    with target_and_parents(destination) as target:
        temporary, old = (temporary_path(target, ending) for ending in ("tmp", "old"))
        try:
            temporary.mkdir()
        except OSError as error:
            raise _unusable(destination, error) from None
        try:
            yield temporary
            files = tuple(_list_files(temporary))
            write_record(temporary / mark_name, mark.model_copy(update={"files": files}))
            if target.exists():
                os.replace(target, old)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists() and not target.exists():
                os.replace(old, target)
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def target_and_parents(destination: Path) -> Iterator[Path]:
    """Resolve links in a destination, and create its parent directories.

    If the block ends with an error, the created directories are removed.

    Errors: UserError for a destination that can't be created.
    """
    try:
        target = destination.resolve()
        missing = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
    except RuntimeError:  # before Python 3.13; later versions raise OSError from mkdir
        raise UserError(
            f"{destination}: a link that points to itself; name another destination"
        ) from None
    except OSError as error:
        raise _unusable(destination, error) from None
    try:
        yield target
    except BaseException:
        with suppress(OSError):  # another process may have written there
            for parent in missing:
                parent.rmdir()
        raise


def temporary_path(target: Path, ending: str) -> Path:
    """A hidden path in the target's directory that no other process uses."""
    suffix = f".{secrets.token_hex(4)}.{ending}"
    return target.with_name(f".{fit_name(target.name, NAME_BYTES - len(suffix) - 1)}{suffix}")


def _unusable(destination: Path, error: OSError) -> UserError:
    return UserError(f"{destination}: can't be created: {error.strerror}; name another destination")


def _list_files(directory: Path) -> Iterator[str]:
    """The relative paths of all files and empty directories below a directory, sorted."""
    for path in sorted(directory.iterdir()):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path.name
        else:
            yield from (f"{path.name}/{below}" for below in _list_files(path))
