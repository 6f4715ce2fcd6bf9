"""Which files a corpus has, in the order in which they are read."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nanogpt.config.corpora import Corpus
from nanogpt.data.opening import KINDS, content_suffix
from nanogpt.errors import UserError, plural
from nanogpt.project import HERE, Project

SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")  # what else follows a dot is a part of a name
KINDS_SHOWN = 5  # of files that a directory has and that aren't read


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
    try:
        return list(_find(corpus, project))
    except OSError as error:
        raise UserError(f"corpora.{name}.files: {error.filename}: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"corpora.{name}.files: {error}") from None


def passed_over(corpus: Corpus, project: Project = HERE) -> dict[str, int]:
    """What is in the directories of a corpus and isn't read, by kind, hidden files left out."""
    passed: Counter[str] = Counter()
    for directory in {project.root / entry: None for entry in corpus.files}:
        if directory.is_dir():
            for _ in _files_below(directory, passed):
                pass
    return dict(sorted(passed.items()))


def in_words(kinds: Mapping[str, int]) -> str:
    """`99 .html, 1 .pdf`, the most frequent kinds first."""
    ordered = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    shown = [f"{kinds[kind]:,} {kind}" for kind in ordered[:KINDS_SHOWN]]
    more = sum(kinds[kind] for kind in ordered[KINDS_SHOWN:])
    return ", ".join(shown) + (f" and {plural(more, 'other file')}" if more else "")


def _find(corpus: Corpus, project: Project) -> dict[Path, None]:
    found: dict[Path, None] = {}
    for entry in corpus.files:
        if corpus.sha256 and not (project.root / entry).is_file():
            raise UserError(f"`sha256` needs names of files, and {entry} is none; leave it out")
        found.update(dict.fromkeys(_expand(entry, project)))
    _check_names(found)
    return found


def _check_names(files: Iterable[Path]) -> None:
    """UserError for a name that isn't UTF-8, which Snakemake and JSON can't hold."""
    for file in files:
        try:
            str(file).encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{file}: its name isn't UTF-8, as from an old archive; rename it, for example "
                "with `convmv`"
            ) from None


def _expand(entry: str, project: Project) -> list[Path]:
    path = project.root / entry
    if path.is_dir():
        passed: Counter[str] = Counter()
        files = sorted(_files_below(path, passed))
        if not files:
            there = f"; it has {in_words(passed)}" if passed else ""
            raise UserError(
                f"there is no {', '.join(KINDS)} file in the directory {entry}{there}; put texts "
                "there, or name a file of it, whatever its name"
            )
        return files
    if path.is_file():
        return [path]
    if path.exists():
        raise UserError(f"{entry} is a pipe or a device, which can't be read twice; name a file")
    if path.is_symlink():
        raise UserError(f"{entry} is a link to nothing; mend it, or name a file")
    if entry.startswith(("http://", "https://")):
        raise UserError(f"{entry} is a URL; put it under `url:` instead of `files:`")
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


def _files_below(directory: Path, passed: Counter[str]) -> Iterator[Path]:
    """What of a directory is a corpus' file, by its name; hidden ones are none."""

    def fail(error: OSError) -> None:
        raise error

    walked = set()  # links may lead in a circle
    for root, directories, names in os.walk(directory, onerror=fail, followlinks=True):
        if (place := os.path.realpath(root)) in walked:
            directories.clear()
            continue
        walked.add(place)
        # Sorted: of two links to a directory, the first one counts.
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in names:
            path = Path(root, name)
            if name.startswith("."):
                continue
            if not path.exists():
                passed["links to nothing"] += 1
            elif not path.is_file():
                passed["pipes and devices"] += 1
            elif content_suffix(name) in KINDS:
                yield path
            else:
                suffix = path.suffix.lower()
                passed[suffix if SUFFIX.fullmatch(suffix) else "others"] += 1
