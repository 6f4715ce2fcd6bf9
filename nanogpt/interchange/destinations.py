"""Where exports and imports are written: a whole directory at once, and never over other files.

A directory that was written here has a mark, which names its files. Only such a directory, or an
empty one, is replaced.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanogpt.artifacts.records.base import Record, read_record, write_record
from nanogpt.errors import UserError, shorten

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
    found = set(_files(destination))
    if not found:
        return
    earlier: set[str] = set()
    if mark_name in found:
        mark = read_record(destination / mark_name, Mark, "name another directory")
        earlier = {mark_name, *mark.files}
    others = sorted(found - earlier)
    if others:
        what = mark_name.removesuffix(".json")
        raise UserError(
            f"{destination}: not empty, and `{shorten(others[0])}` is no file of an earlier {what};"
            " name another directory"
        )


@contextmanager
def whole_directory(destination: Path, mark_name: str, mark: Mark) -> Iterator[Path]:
    """A directory to write into, which takes its place when the block ends without an error.

    mark: without the names of the files, which are found.

    Errors: UserError for a place where other files are or no directory can be made.
    """
    check_directory(destination, mark_name)
    target = destination.resolve()
    code = secrets.token_hex(4)
    temporary, old = (target.parent / f".{target.name}.{code}.{end}" for end in ("tmp", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        raise UserError(
            f"{destination}: no directory can be made there: {error.strerror}; name another"
        ) from None
    try:
        yield temporary
        files = tuple(sorted(_files(temporary)))
        write_record(temporary / mark_name, mark.model_copy(update={"files": files}))
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(old, ignore_errors=True)


def _files(directory: Path) -> Iterator[str]:
    """All files below a directory, and directories that hold none, by their paths in it."""
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path.relative_to(directory).as_posix()
