"""Find files that take space in addition to the runs of config.yaml, and remove unused ones.

These are artifacts in the cache, states of unfinished trainings, results of runs and datasets that
config.yaml no longer has, and records of code that made none of them. Listing changes nothing.
"""

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt.artifacts import cache
from nanogpt.artifacts.invocations import find_holders
from nanogpt.artifacts.manifests import SUFFIX, model_among
from nanogpt.artifacts.records.base import FormatError, read_record
from nanogpt.artifacts.records.manifests import (
    CacheEntry,
    CodeFunctions,
    Manifest,
    Request,
    TrainingRequest,
)
from nanogpt.artifacts.states import REQUEST
from nanogpt.config.initial import SourceError, find_source
from nanogpt.config.resolving import resolve_run, run_names, run_parameters
from nanogpt.config.schema import Config, Run
from nanogpt.errors import UserError
from nanogpt.files import locks
from nanogpt.planning.stages import DATASET, TOKEN_FILES
from nanogpt.project import SHARD, Project
from nanogpt.training.state_files import saved_steps

DAY = 86_400.0  # seconds

# Files of a dataset that no manifest lists, because its preparation was interrupted: those of its
# groups, by suffix, and others by name.
OF_GROUPS = (".bin", ".npy", ".json", ".log", ".tsv", ".tmp")
NAMES = map(re.escape, (*TOKEN_FILES, *DATASET, "prepare.log", "prepare.benchmark.tsv"))
OF_DATASET = re.compile("|".join([SHARD.pattern, *NAMES, r"\..+\.tmp"]))


@dataclass(frozen=True)
class Item:
    """An item that takes space. unused: the reason why it can be removed; empty if it's needed."""

    kind: str  # artifact, state, result or remains
    path: Path
    size: int  # bytes
    age: float  # seconds since it was made, or last restored or saved
    what: str
    unused: str = ""


def find_items(project: Project, config: Config) -> list[Item]:
    """Find artifacts, states, and results that config.yaml doesn't have, by kind and age."""
    items = [*_artifacts(project), *_states(project, config), *_claims(project, config)]
    items += [*_results(project, config), *_code(project)]
    order = ["artifact", "state", "result", "remains"]
    return sorted(items, key=lambda item: (order.index(item.kind), -item.age))


def to_prune(
    items: Sequence[Item], older_than: float | None, max_size: float | None, results: bool
) -> list[Item]:
    """Choose the items to remove: unused ones, and artifacts beyond the limits.

    older_than: in seconds. max_size: in bytes; the least recently used artifacts are removed first.
    results: also remove results of runs and datasets that config.yaml doesn't have.
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


def remove(project: Project, item: Item) -> None:
    """Remove an item. Of results, only the files made by rules are removed.

    Errors: OSError, for example without permission.
    """
    if item.path.is_symlink():
        item.path.unlink()
    elif item.kind == "artifact":
        cache.remove(item.path)
    elif item.kind == "result":
        _remove_results(project, item.path)
    elif item.path.is_dir():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)


def _remove_results(project: Project, directory: Path) -> None:
    """Remove the outputs, logs and manifests of stages in a directory."""
    for path in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(UserError):
            for name in read_record(path, Manifest).outputs:
                # A manifest copied from elsewhere could name any path.
                output = project.root / name
                with contextlib.suppress(ValueError):  # not a valid file name
                    if output.resolve().is_relative_to(directory.resolve()):
                        output.unlink(missing_ok=True)
        stage = path.name.removesuffix(SUFFIX)
        for suffix in (".log", ".benchmark.tsv", SUFFIX):
            (directory / f"{stage}{suffix}").unlink(missing_ok=True)
    if directory.parent == project.datasets:
        _remove_unlisted(directory)
    below = [Path(path) for path, _, _ in os.walk(directory, topdown=False)]
    for path in below:
        with contextlib.suppress(OSError):  # it has a file of the user's
            path.rmdir()


def _remove_unlisted(dataset: Path) -> None:
    """Remove a dataset's files that no manifest lists."""
    of_groups = [path for path in (dataset / "groups").rglob("*") if path.suffix in OF_GROUPS]
    of_dataset = [path for path in dataset.iterdir() if OF_DATASET.fullmatch(path.name)]
    for path in (*of_groups, *of_dataset):
        if path.is_file():
            path.unlink()


def _artifacts(project: Project) -> list[Item]:
    if project.cache is None or not project.cache.is_dir():
        return []
    items = []
    for entry in project.cache.iterdir():
        size, age = _measure(entry)
        if entry.name.startswith("."):
            # A younger one may still be written.
            unused = "left by a killed process" if age > DAY else ""
            items.append(Item("remains", entry, size, age, "in the cache", unused))
            continue
        what, unused = entry.name, ""
        try:
            manifest = read_record(entry / cache.MANIFEST, CacheEntry)
            what = f"{manifest.stage} {entry.name}, first made in {manifest.made_in}"
        except FormatError:
            what = f"{entry.name}, from a later version of nanogpt"
        except UserError:
            unused = "damaged"
        items.append(Item("artifact", entry, size, age, what, unused))
    return items


def _states(project: Project, config: Config) -> list[Item]:
    return [_state(directory, config) for directory in project.states.glob("*")]


def _state(directory: Path, config: Config) -> Item:
    """Describe the state of a training."""
    size, age = _measure(directory)
    if directory.name.startswith("."):
        return Item("remains", directory, size, age, "of a state", "the training is finished")
    is_owned = locks.owner(directory) is not None
    try:
        request = read_record(directory / REQUEST, TrainingRequest)
    except FormatError:
        return Item("state", directory, size, age, "from a later version of nanogpt")
    except UserError:
        return Item("state", directory, size, age, directory.name, "" if is_owned else "has no run")
    what = f"{request.run}, step {max(saved_steps(directory), default=0)}"
    if is_owned:
        return Item("state", directory, size, age, f"{what}, in training now")
    unused = ""
    if request.run not in run_names(config):
        unused = "no such run in config.yaml"
    elif not request.settings.keys() <= Run.model_fields.keys():
        unused = "has settings that this version of nanogpt doesn't know"
    elif not _is_current(config, request):
        unused = "config.yaml now has other settings for this run"
    return Item("state", directory, size, age, what, unused)


def _is_current(config: Config, request: TrainingRequest) -> bool:
    """Whether config.yaml still has the requested settings, as far as we can tell."""
    source = find_source(config, request.run)
    if model_among(request.inputs) != (source.directory if source else None):
        return False
    try:
        run = resolve_run(config, request.run)
    except SourceError:  # the initial model is missing now
        return True
    return request.settings == run_parameters(run, request.settings)


def _claims(project: Project, config: Config) -> list[Item]:
    """Find claims on runs that config.yaml no longer has."""
    items = []
    for claim in project.claims.glob("*"):
        with contextlib.suppress(OSError, ValueError):  # ValueError: damaged
            if locks.owner(project.states / claim.read_text()):
                continue
        if claim.name not in run_names(config):
            size, age = _measure(claim)
            what, why = f"of the run {claim.name}", "no such run in config.yaml"
            items.append(Item("remains", claim, size, age, what, why))
    return items


def _results(project: Project, config: Config) -> list[Item]:
    """Find results of runs and datasets that config.yaml doesn't have, and that rules made."""
    runs, datasets = {*run_names(config), "datasets", "report"}, set(config.datasets)
    found = [(path, runs, "run") for path in project.results.glob("*")]
    found += [(path, datasets, "dataset") for path in project.datasets.glob("*")]
    return [
        Item("result", path, *_measure(path), str(path), f"no such {kind} in config.yaml")
        for path, names, kind in found
        if path.name not in names
        and (any(path.glob(f"*{SUFFIX}")) or _is_interrupted(project, path))
    ]


def _is_interrupted(project: Project, path: Path) -> bool:
    """Whether the preparation of a dataset was interrupted before there was a manifest.

    While Snakemake is running, it may be preparing the dataset from another config.
    """
    logs = [*path.glob("prepare.log"), *path.glob("groups/*/count.log")]
    return path.parent == project.datasets and bool(logs) and not find_holders(project)


def _code(project: Project) -> list[Item]:
    """Find records of code versions that made nothing that still exists."""
    notes = list(project.code.glob("*.json"))
    made_by = _made_by(project) if notes else set()
    items = []
    for path in notes:
        size, age = _measure(path)
        unused = "nothing made by it exists any more"
        try:
            if read_record(path, CodeFunctions).code in made_by:
                continue
        except FormatError:
            continue
        except UserError:
            unused = "damaged"
        if age > DAY:  # a running job has no manifest yet
            items.append(Item("remains", path, size, age, "record of a code version", unused))
    return items


def _made_by(project: Project) -> set[str]:
    """Return the code digests of all results, artifacts and states."""
    found = set()
    records: list[tuple[Path, type[Request]]] = []
    for directory in (project.results, project.resources):
        for place, _, names in os.walk(directory):
            records += [(Path(place) / name, Manifest) for name in names if name.endswith(SUFFIX)]
    if project.cache is not None:
        records += [(path, CacheEntry) for path in project.cache.glob(f"*/{cache.MANIFEST}")]
    records += [(path, TrainingRequest) for path in project.states.glob(f"*/{REQUEST}")]
    for path, kind in records:
        with contextlib.suppress(UserError):
            found.add(read_record(path, kind).code)
    return found


def _measure(path: Path) -> tuple[int, float]:
    """Return the size in bytes, and the seconds since an item was made, restored or saved.

    Files that vanish in the meantime are skipped, since other processes may be running.
    """
    size, newest = 0, []
    # Not rglob, which fails if a directory vanishes.
    below = [Path(directory) / name for directory, _, names in os.walk(path) for name in names]
    for one in [path, *below]:
        with contextlib.suppress(FileNotFoundError):
            found = one.lstat()
            size += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
            if one == path or one.name.startswith("step-"):
                newest.append(found.st_mtime)
    now = time.time()
    return size, now - max(newest, default=now)
