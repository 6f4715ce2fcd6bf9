"""Where exports and imports are written: a whole directory at once, and never over other files.

A directory that was written here has a mark, which names its files. Only such a directory, or an
empty one, is replaced.
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
    """export.json or import.json: what a directory was made from.

    kind: huggingface, nanogpt or gguf. source: the name of the model that was exported, or what was
    imported. sha256: of the weights that were exported. files: all others beside it.
    """

    kind: str
    source: str
    sha256: str | None = None
    files: tuple[str, ...] = ()


def check_directory(destination: Path, mark_name: str) -> None:
    """UserError if something lies at a destination that isn't an earlier export or import."""
    if not destination.exists():
        return
    if not destination.is_dir():
        raise UserError(f"{destination}: a file is there; name another directory")
    earlier: set[str] = set()
    if (destination / mark_name).exists():
        mark = read_record(destination / mark_name, Mark, "name another directory")
        earlier = {mark_name, *mark.files}
    other = next((path for path in _list_files(destination) if path not in earlier), None)
    if other is not None:
        what = mark_name.removesuffix(".json")
        raise UserError(
            f"{destination}: not empty, and `{shorten(other)}` is no file of an earlier {what};"
            " name another directory"
        )


@contextmanager
def whole_directory(destination: Path, mark_name: str, mark: Mark) -> Iterator[Path]:
    """A directory to write into, which takes its place when the block ends without an error.

    mark: without the names of the files, which are found.

    Errors: UserError for a place where other files are or no directory can be made.
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
    """Where a destination really lies, after links, with the directories above it.

    Those that were made for it are removed if the block ends with an error.

    Errors: UserError for a place where no directory can be made.
    """
    try:
        target = destination.resolve()
        missing = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
    except RuntimeError:  # before Python 3.13; later ones can't make the directory
        raise UserError(f"{destination}: a link that leads to itself; name another") from None
    except OSError as error:
        raise _unusable(destination, error) from None
    try:
        yield target
    except BaseException:
        with suppress(OSError):  # another process writes there, too
            for parent in missing:
                parent.rmdir()
        raise


def temporary_path(target: Path, ending: str) -> Path:
    """A hidden path beside a target that no other process takes."""
    suffix = f".{secrets.token_hex(4)}.{ending}"
    return target.with_name(f".{fit_name(target.name, NAME_BYTES - len(suffix) - 1)}{suffix}")


def _unusable(destination: Path, error: OSError) -> UserError:
    return UserError(
        f"{destination}: no directory can be made there: {error.strerror}; name another"
    )


def _list_files(directory: Path) -> Iterator[str]:
    """All files below a directory, and directories that hold none, by their paths in it, sorted."""
    for path in sorted(directory.iterdir()):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path.name
        else:
            yield from (f"{path.name}/{below}" for below in _list_files(path))
