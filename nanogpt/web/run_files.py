"""The files of runs: where they are, whether they changed, and none outside their directories."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nanogpt import __version__
from nanogpt.artifacts.invocations import find_holders
from nanogpt.artifacts.states import METRICS, REQUEST, find_trainings
from nanogpt.config.patterns import NAME, RESERVED_RUN_NAMES
from nanogpt.files import locks
from nanogpt.files.locks import Owner
from nanogpt.project import Project
from nanogpt.web.site import Site

# The files that the report reads of a run.
IN_RESULTS = (
    METRICS,
    "eval.json",
    "train.manifest.json",
    "eval.manifest.json",
    "sample.manifest.json",
    "samples.txt",
    "bench.json",
    "train.log",
    "eval.log",
)
IN_STATE = (REQUEST, METRICS)

TRAINED = re.compile(rf"(?:.*/)?results/([^/]+)/{re.escape(METRICS)}")


@dataclass(frozen=True)
class RunFiles:
    """The files of a run. results: the directory of all runs.

    state: the directory of its unfinished training. owner: the process that trains it. stamp: a
    text that changes whenever one of the files does. updated: the time of the last change. moved:
    the last sign of life of its training, in nanoseconds. link: a file that's a symbolic link to
    somewhere else, so the run must not be read.
    """

    name: str
    results: Path
    state: Path | None = None
    owner: Owner | None = None
    stamp: str = ""
    updated: float = 0.0
    moved: int = 0
    link: Path | None = None

    @property
    def directory(self) -> Path:
        """The run's directory, which may not exist yet."""
        return self.results / self.name

    @property
    def metrics(self) -> Path:
        """The metrics so far. The results have none while a training runs."""
        own = self.directory / METRICS
        return self.state / METRICS if self.state and not own.exists() else own


def is_run_name(name: str) -> bool:
    """Whether a run can have this name."""
    return bool(NAME.fullmatch(name)) and not RESERVED_RUN_NAMES.fullmatch(name)


def find_all(site: Site) -> dict[str, RunFiles]:
    """Find the files of all runs, by name."""
    states = _states(site)
    try:
        with os.scandir(site.results) as items:
            # Whether each is a symbolic link.
            names = {
                item.name: item.is_symlink()
                for item in items
                if is_run_name(item.name) and _is_directory(item)
            }
    except (FileNotFoundError, NotADirectoryError):
        names = {}
    root = str(site.results.resolve())
    # Sorted, so that a first reading in parts goes in order.
    return {
        name: _look(site, name, states.get(name), root, names.get(name, False))
        for name in sorted(names.keys() | states.keys())
    }


def _is_directory(item: os.DirEntry[str]) -> bool:
    """Whether it's a directory; not if that can't be seen, as for a loop of links."""
    try:
        return item.is_dir()
    except OSError:
        return False


def find_one(site: Site, name: str) -> RunFiles | None:
    """Find the files of a run; None if there's no such run."""
    if not is_run_name(name):
        return None
    state = _states(site).get(name)
    directory = site.results / name
    # A Path would raise an error for a name that's too long.
    if state is None and not os.path.isdir(directory):  # noqa: PTH112
        return None
    return _look(site, name, state, str(site.results.resolve()), directory.is_symlink())


def find_awaited(project: Project) -> tuple[set[str], float]:
    """Find the runs that a running Snakemake trains or will train, and when it was started.

    Its lock lists the files that it will write.
    """
    names: set[str] = set()
    started = 0.0
    for path in project.snakemake_locks.glob("*.output.lock"):
        try:
            text, mtime = path.read_text(errors="replace"), path.stat().st_mtime
        except OSError:  # it has just ended
            continue
        found = {match[1] for line in text.splitlines() if (match := TRAINED.fullmatch(line))}
        names |= {name for name in found if is_run_name(name)}
        started = max(started, mtime)
    return (names, started) if names and find_holders(project) else (set(), 0.0)


def is_inside(path: Path, directory: Path) -> bool:
    """Whether a path is in a directory once symbolic links are followed.

    It's false for a path that can't be followed, such as a loop of links or a name that's too long.
    """
    try:
        return path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        return False


def _states(site: Site) -> dict[str, Path]:
    """Return the states of unfinished trainings, which belong to the project's own results.

    The workflow makes no links to them, so one may lead anywhere.
    """
    if not site.shows_own_results:
        return {}
    return {
        run: path
        for run, path in find_trainings(site.project).items()
        if is_run_name(run) and not path.is_symlink()
    }


def _look(site: Site, name: str, state: Path | None, root: str, is_link: bool) -> RunFiles:
    """Look at the files of a run. This has to be fast: it's done for all runs again and again."""
    results = site.results
    if is_link and not is_inside(results / name, results):
        return RunFiles(name, results, stamp="link", link=results / name)
    owner = _owner(state) if state else None
    stamps, updated, link = [__version__, str(owner is not None)], 0, None
    for path, top in _watched(site, name, state, root):
        try:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                if not is_inside(Path(path), Path(top)):
                    link = Path(path)
                    stamps.append("link")
                found = Path(path).stat()
        except OSError:
            stamps.append("")
            continue
        if not stat.S_ISREG(found.st_mode):
            link = Path(path)
        stamps.append(f"{found.st_mtime_ns} {found.st_size} {found.st_ino}")
        updated = max(updated, found.st_mtime_ns)
    moved = max(updated, owner.touched) if owner else 0
    return RunFiles(
        name, results, state, owner, ",".join(stamps), max(updated, moved) / 1e9, moved, link
    )


def _watched(site: Site, name: str, state: Path | None, root: str) -> Iterator[tuple[str, str]]:
    """Yield each file and the directory that it must be in."""
    base = f"{site.results}/{name}"
    for file in IN_RESULTS:
        yield f"{base}/{file}", root
    if state:
        for file in IN_STATE:
            yield f"{state}/{file}", str(site.project.states)


def _owner(state: Path) -> Owner | None:
    try:
        return locks.owner(state)
    except OSError:  # the training has just ended
        return None


def open_inside(path: Path, directory: Path) -> BinaryIO | None:
    """Open a file to read; None if it isn't a file in the directory, or can't be read."""
    try:
        if not is_inside(path, directory):
            return None
        # A pipe would otherwise wait for a writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(path.resolve(), flags), "rb")
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        return None
    return file


def read_start(path: Path, directory: Path, most: int) -> str | None:
    """Return the start of a text, at most this many bytes; None if it can't be read."""
    file = open_inside(path, directory)
    if file is None:
        return None
    with file:
        data = file.read(most + 1)
    text = data[:most].decode(errors="replace")
    return text + "…" if len(data) > most else text


def read_end(path: Path, directory: Path, most: int) -> str | None:
    """Return the last whole lines of a text, at most this many bytes; None if it can't be read."""
    file = open_inside(path, directory)
    if file is None:
        return None
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        text = file.read(most).decode(errors="replace")
    return text.partition("\n")[2] if size > most else text
