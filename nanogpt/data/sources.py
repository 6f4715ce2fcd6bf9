"""Find the files of a corpus, in the order in which they're read."""

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

SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")  # a longer or other suffix is part of the name
KINDS_SHOWN = 5  # kinds of skipped files that a message lists


def find_files(name: str, corpus: Corpus, project: Project = HERE) -> list[Path]:
    """Return the files of a corpus, in the order in which they're read.

    Files of a directory or pattern are sorted by path. Downloads don't have to exist yet.
    Relative entries of `files` are relative to the project's root.

    Errors: UserError for an entry without files, and for a pattern that leaves the project.
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
    """Count the files in a corpus's directories that aren't read, by kind, without hidden ones."""
    passed: Counter[str] = Counter()
    for directory in {project.root / entry: None for entry in corpus.files}:
        if directory.is_dir():
            for _ in _files_below(directory, passed):
                pass
    return dict(sorted(passed.items()))


def in_words(kinds: Mapping[str, int]) -> str:
    """List counts like `99 .html, 1 .pdf`, the most frequent kinds first."""
    ordered = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    shown = [f"{kinds[kind]:,} {kind}" for kind in ordered[:KINDS_SHOWN]]
    more = sum(kinds[kind] for kind in ordered[KINDS_SHOWN:])
    return ", ".join(shown) + (f" and {plural(more, 'other file')}" if more else "")


def _find(corpus: Corpus, project: Project) -> dict[Path, None]:
    found: dict[Path, None] = {}
    for entry in corpus.files:
        if corpus.sha256 and not (project.root / entry).is_file():
            raise UserError(f"{entry}: not a file, so `sha256:` can't check it; remove `sha256:`")
        found.update(dict.fromkeys(_expand(entry, project)))
    _check_names(found)
    return found


def _check_names(files: Iterable[Path]) -> None:
    """Raise UserError for a name that isn't UTF-8, which Snakemake and JSON can't represent."""
    for file in files:
        try:
            str(file).encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{file}: its name isn't UTF-8; rename it, for example with `convmv`"
            ) from None


def _expand(entry: str, project: Project) -> list[Path]:
    path = project.root / entry
    if path.is_dir():
        passed: Counter[str] = Counter()
        files = sorted(_files_below(path, passed), key=lambda file: file.parts)
        if not files:
            found = f" (found {in_words(passed)})" if passed else ""
            raise UserError(
                f"{entry}: this directory has no {', '.join(KINDS)} file{found}; put texts there, "
                "or name files in it one by one, which can have any suffix"
            )
        return files
    if path.is_file():
        return [path]
    if path.exists():
        raise UserError(f"{entry}: a pipe or a device, which can't be read twice; name a file")
    if path.is_symlink():
        raise UserError(f"{entry}: a broken link; fix it or name a file")
    if entry.startswith(("http://", "https://")):
        raise UserError(f"{entry}: a URL, not a file; put it under `url:` instead of `files:`")
    if not glob.has_magic(entry):
        raise UserError(f"{entry}: no such file; put a text there or correct the path")
    if Path(entry).is_absolute() or ".." in Path(entry).parts:
        raise UserError(
            f"{entry}: this pattern leaves the project, where a typo could search a whole disk; "
            "name a directory instead, or link the texts into resources/"
        )
    # pathlib's glob finds hidden files and rejects some patterns.
    names = glob.glob(entry, root_dir=project.root, recursive=True)  # noqa: PTH207
    matches = [path for name in names if (path := project.root / name).is_file()]
    if not matches:
        raise UserError(
            f"{entry}: no file matches this pattern; put texts there or correct the pattern"
        )
    return sorted(matches)


def _files_below(directory: Path, passed: Counter[str]) -> Iterator[Path]:
    """Yield a directory's texts by their suffixes, and count other files; skip hidden ones."""
    walked = set()  # links can form a cycle
    waiting = [str(directory)]
    while waiting:
        root = waiting.pop()
        if (place := os.path.realpath(root)) in walked:
            continue
        walked.add(place)
        with os.scandir(root) as entries:
            # Sorted, so that the first of two links to the same directory is followed everywhere.
            shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        directories = []
        for entry in shown:
            kind = _kind(entry)
            if kind == "directory":
                directories.append(entry.path)
            elif kind != "file":
                passed[kind] += 1
            elif content_suffix(entry.name) in KINDS:
                yield Path(entry.path)
            else:
                suffix = Path(entry.name).suffix.lower()
                passed[suffix if SUFFIX.fullmatch(suffix) else "others"] += 1
        waiting += reversed(directories)


def _kind(entry: os.DirEntry[str]) -> str:
    """The kind of an entry of a directory, without a system call for each file."""
    try:
        if entry.is_dir():
            return "directory"
        if entry.is_file():
            return "file"
    except OSError:  # such as a link to itself
        return "links to nothing"
    return "pipes and devices" if Path(entry.path).exists() else "links to nothing"
