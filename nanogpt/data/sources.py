"""Which files a corpus has, in the order in which they are read."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from nanogpt.config.corpora import Corpus
from nanogpt.data.opening import KINDS, kind_of
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project


def find_files(name: str, corpus: Corpus, project: Project = HERE) -> list[Path]:
    """The files of a corpus, in the order in which they are read.

    A directory and a pattern give theirs sorted by path. A download need not be there yet.
    Relative entries of `files` are below the project's root.

    Errors: UserError where nothing is found, and for a pattern that leads out of the project.
    """
    if corpus.builtin:
        return [project.corpora / name / "input.txt"]
    if corpus.url:
        return [project.corpora / name / file for file in corpus.downloads]
    found: dict[Path, None] = {}
    for entry in corpus.files:
        try:
            files = _expand(entry, project)
        except OSError as error:
            raise UserError(f"corpora.{name}.files: {error.filename}: {error.strerror}") from None
        except UserError as error:
            raise UserError(f"corpora.{name}.files: {error}") from None
        found.update(dict.fromkeys(files))
    return list(found)


def _expand(entry: str, project: Project) -> list[Path]:
    path = project.root / entry
    if path.is_dir():
        files = sorted(_files_below(path))
        if not files:
            raise UserError(
                f"there is no {', '.join(KINDS)} file in the directory {entry}; put texts there, "
                "or name a file of it, whatever its name"
            )
        return files
    if path.is_file():
        return [path]
    if not glob.has_magic(entry):
        raise UserError(f"there is no file {entry}; put it there or correct the path")
    if Path(entry).is_absolute() or ".." in Path(entry).parts:
        raise UserError(
            f"the pattern {entry} leads out of the project, where a slip may search a whole disk; "
            "name a directory instead, or link the texts into resources/"
        )
    # Not pathlib's, which takes hidden files and refuses some patterns.
    names = glob.glob(entry, root_dir=project.root, recursive=True)  # noqa: PTH207
    matches = [path for name in names if (path := project.root / name).is_file()]
    if not matches:
        raise UserError(f"no file matches the pattern {entry}; put texts there or correct it")
    return sorted(matches)


def _files_below(directory: Path) -> Iterator[Path]:
    """What of a directory is a corpus' file, by its name; hidden ones are none."""

    def fail(error: OSError) -> None:
        raise error

    walked = set()  # links may lead in a circle
    for root, directories, names in os.walk(directory, onerror=fail, followlinks=True):
        if (place := os.path.realpath(root)) in walked:
            directories.clear()
            continue
        walked.add(place)
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            if kind_of(path) in KINDS and not name.startswith("."):
                if not path.exists():
                    raise UserError(f"{path}: a link to nothing; mend or remove it")
                yield path
