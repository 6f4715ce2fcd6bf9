"""What lies on the disk beside and after the runs of config.yaml, and what of it may go.

Artifacts in the cache, states of unfinished trainings, and results of runs and datasets that no
config names any more. Listing never changes anything; how an artifact or a state is read or written
is left to cache.py and state.py.
"""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt.artifacts import cache
from nanogpt.artifacts.states import CLAIMS, STATE, saved_steps
from nanogpt.config.resolving import resolve_run, run_names
from nanogpt.config.schema import Config
from nanogpt.files import locks as lock
from nanogpt.files.atomic import read_json

DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Item:
    """Something that takes space. unused: why it may go, or none."""

    kind: str  # artifact, state, result or remains
    path: Path
    size: int  # bytes
    age: float  # seconds since it was made, or last restored or saved
    what: str
    unused: str = ""


def find_items(config: Config, results: Path = Path("results")) -> list[Item]:
    """All artifacts, states and results that no config names, each kind oldest first."""
    items = [*_artifacts(), *_states(config), *_results(config, results)]
    order = ["artifact", "state", "result", "remains"]
    return sorted(items, key=lambda item: (order.index(item.kind), -item.age))


def to_prune(
    items: Sequence[Item], older_than: float | None, max_size: float | None, results: bool
) -> list[Item]:
    """What of all this may go: what is unused, and of the artifacts those that are too much.

    results: those of runs that no config names, too. older_than: seconds. max_size: bytes that may
    stay; those go first that were not used for long.
    """
    chosen = [item for item in items if item.unused and (results or item.kind != "result")]
    artifacts = [item for item in items if item.kind == "artifact" and not item.unused]
    if older_than is not None:
        chosen += [item for item in artifacts if item.age > older_than]
    if max_size is not None:
        kept = [item for item in artifacts if item not in chosen]
        for item in sorted(kept, key=lambda item: -item.age):
            if sum(item.size for item in kept) <= max_size:
                break
            kept.remove(item)
            chosen.append(item)
    return chosen


def remove(item: Item) -> None:
    """Remove what was found; of results, the files that rules made.

    Errors: OSError for what belongs to others.
    """
    if item.path.is_symlink():
        item.path.unlink()
    elif item.kind == "artifact":
        cache.remove(item.path)
    elif item.kind == "result":
        _remove_made(item.path)
    elif item.path.is_dir():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)


def _remove_made(directory: Path) -> None:
    for made in directory.glob("*.manifest.json"):
        stage = made.name.removesuffix(".manifest.json")
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            outputs = [Path(path) for path in read_json(made)["outputs"]]
            for path in outputs:
                # A manifest of another place could name anything.
                if path.resolve().is_relative_to(directory.resolve()):
                    path.unlink(missing_ok=True)
        for suffix in (".log", ".benchmark.tsv", ".manifest.json"):
            (directory / f"{stage}{suffix}").unlink(missing_ok=True)
    below = [Path(path) for path, _, _ in os.walk(directory, topdown=False)]
    for path in below:
        with contextlib.suppress(OSError):  # it holds something of the user's
            path.rmdir()


def _artifacts() -> list[Item]:
    directory = cache.directory()
    if directory is None or not directory.is_dir():
        return []
    items = []
    for entry in directory.iterdir():
        size, age = _measure(entry)
        if entry.name.startswith("."):
            # An entry that is just being written is younger.
            unused = "left by a process that was killed" if age > DAY else ""
            items.append(Item("remains", entry, size, age, "of the cache", unused))
            continue
        try:
            said = read_json(entry / cache.MANIFEST)
            what = f"{said['stage']} {entry.name}, first made in {said['made_in']}"
            items.append(Item("artifact", entry, size, age, what))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            items.append(Item("artifact", entry, size, age, entry.name, "damaged"))
    return items


def _states(config: Config) -> list[Item]:
    items = []
    for directory in STATE.glob("*"):
        size, age = _measure(directory)
        if directory.name.startswith("."):
            items.append(
                Item("remains", directory, size, age, "of a state", "the training is done")
            )
            continue
        held = lock.owner(directory)
        try:
            said = read_json(directory / "run.json")
            run, settings = said["run"], dict(said["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            unused = "" if held else "of no run"
            items.append(Item("state", directory, size, age, directory.name, unused))
            continue
        what = f"{run}, step {max(saved_steps(directory), default=0)}"
        if held:
            items.append(Item("state", directory, size, age, f"{what}, which is being trained"))
            continue
        unused = ""
        if run not in run_names(config):
            unused = "no such run in config.yaml"
        elif settings != resolve_run(config, run).model_dump(include=set(settings)):
            unused = "config.yaml has other settings for this run now"
        items.append(Item("state", directory, size, age, what, unused))
    for claim in CLAIMS.glob("*"):
        with contextlib.suppress(OSError):
            if lock.owner(STATE / claim.read_text()):
                continue
        if claim.name not in run_names(config):
            size, age = _measure(claim)
            items.append(
                Item("remains", claim, size, age, "of a run", "no such run in config.yaml")
            )
    return items


def _results(config: Config, results: Path) -> list[Item]:
    """The results of runs and datasets of other names; only what has a manifest of ours."""
    runs, datasets = {*run_names(config), "datasets", "report"}, set(config.datasets)
    found = [(path, runs, "run") for path in results.glob("*")]
    found += [(path, datasets, "dataset") for path in (results / "datasets").glob("*")]
    return [
        Item("result", path, *_measure(path), str(path), f"no such {kind} in config.yaml")
        for path, names, kind in found
        if path.name not in names and any(path.glob("*.manifest.json"))
    ]


def _measure(path: Path) -> tuple[int, float]:
    """Bytes, and seconds since it was made, or last restored or saved.

    What goes while it is looked at is not counted: other processes work there.
    """
    size, newest = 0, []
    # Not rglob, which fails where a directory goes.
    below = [Path(directory) / name for directory, _, names in os.walk(path) for name in names]
    for one in [path, *below]:
        with contextlib.suppress(FileNotFoundError):
            found = one.lstat()
            size += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
            if one == path or one.name.startswith("step-"):
                newest.append(found.st_mtime)
    now = time.time()
    return size, now - max(newest, default=now)
