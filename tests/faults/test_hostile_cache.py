"""A damaged or hostile cache entry is logged, removed and recomputed, never used."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt.artifacts import cache
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import CacheEntry, Manifest
from nanogpt.files.atomic import read_json, sha256_file
from nanogpt.project import Project
from tests.checkouts import PROJECT
from tests.faults.attacks import (
    FULL,
    PATIENCE,
    assert_is_whole,
    environment,
    litter,
    log_of,
    only_in_full,
    run_trainer,
    run_workflow,
)

CACHE = ".nanogpt/cache"
WEIGHTS = "model/model.safetensors"


class Bomb:
    """An object that creates a file in the working directory when it's unpickled."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch executed",))


def untouched_manifest(project: Path) -> Manifest:
    """Return the manifest of the undisturbed training."""
    return read_record(project / "untouched.manifest.json", Manifest)


def names_of(manifest: Manifest) -> dict[str, str]:
    """Return the training's outputs by their names in its cache entry."""
    return cache.names_in_entry(manifest.outputs, "results/one/train.manifest.json")


@pytest.fixture
def stored(project: Path, done_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the training's entry in a project's cache, after removing its results."""
    manifest = untouched_manifest(done_project)
    # An absolute path, which joining to the project's root doesn't change.
    monkeypatch.setenv("NANOGPT_CACHE", str(project / CACHE))
    cache.store(Project(done_project), manifest, names_of(manifest))
    entry = project / CACHE / manifest.version
    assert entry.is_dir()
    return entry


def edit_manifest(entry: Path, edit: Callable[[dict], object]) -> None:
    content = read_json(entry / cache.MANIFEST)
    edit(content)
    (entry / cache.MANIFEST).write_text(json.dumps(content))


def rename_output(entry: Path, name: str, *, copied_to: Path | None = None) -> None:
    def rename(content: dict) -> None:
        content["outputs"][name] = content["outputs"].pop(WEIGHTS)

    edit_manifest(entry, rename)
    if copied_to:
        shutil.copy(entry / WEIGHTS, copied_to)


def flipped(entry: Path) -> None:
    written = bytearray((entry / WEIGHTS).read_bytes())
    written[-1] ^= 1
    (entry / WEIGHTS).write_bytes(written)


def linked_file(entry: Path) -> None:
    """The target of the link even has the right bytes."""
    outside = entry.parents[2] / "outside"
    (entry / WEIGHTS).rename(outside)
    (entry / WEIGHTS).symlink_to(outside)


def linked_manifest(entry: Path) -> None:
    outside = entry.parents[2] / "outside"
    (entry / cache.MANIFEST).rename(outside)
    (entry / cache.MANIFEST).symlink_to(outside)


def pipe(entry: Path) -> None:
    """Opening it would block forever, waiting for a writer."""
    (entry / WEIGHTS).unlink()
    os.mkfifo(entry / WEIGHTS)


def directory(entry: Path) -> None:
    (entry / WEIGHTS).unlink()
    (entry / WEIGHTS).mkdir()


def path_out_of_the_entry(entry: Path) -> None:
    rename_output(entry, "../../../outside", copied_to=entry.parent / "outside")


def absolute_path(entry: Path) -> None:
    rename_output(entry, str(entry.parents[2] / "outside"))


def one_file_more(entry: Path) -> None:
    edit_manifest(entry, lambda content: content["outputs"].update({"../../../outside": "0" * 64}))


def bomb_as_weights(entry: Path) -> None:
    (entry / WEIGHTS).write_bytes(pickle.dumps(Bomb()))


def manifest_of_another_version(entry: Path) -> None:
    edit_manifest(entry, lambda content: content["parameters"]["train"].update(seed=2))


def manifest_that_is_a_bomb(entry: Path) -> None:
    (entry / cache.MANIFEST).write_bytes(pickle.dumps(Bomb()))


def manifest_that_nests_deeply(entry: Path) -> None:
    (entry / cache.MANIFEST).write_text("[" * 100_000)


def manifest_of_a_list(entry: Path) -> None:
    (entry / cache.MANIFEST).write_text("[]")


def outputs_that_are_a_list(entry: Path) -> None:
    edit_manifest(entry, lambda content: content.update(outputs=[WEIGHTS]))


def digests_that_are_not_text(entry: Path) -> None:
    edit_manifest(entry, lambda content: content["outputs"].update({WEIGHTS: None}))


def missing_file(entry: Path) -> None:
    (entry / WEIGHTS).unlink()


def missing_manifest(entry: Path) -> None:
    (entry / cache.MANIFEST).unlink()


def emptied(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


ATTACKS = [
    flipped,
    linked_file,
    path_out_of_the_entry,
    bomb_as_weights,
    linked_manifest,
    pipe,
    directory,
    absolute_path,
    one_file_more,
    manifest_of_another_version,
    manifest_that_is_a_bomb,
    manifest_that_nests_deeply,
    manifest_of_a_list,
    outputs_that_are_a_list,
    digests_that_are_not_text,
    missing_file,
    missing_manifest,
    emptied,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_hostile_entry_is_logged_removed_and_never_used(
    project: Path,
    stored: Path,
    count: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    attack: Callable[[Path], None],
) -> None:
    attack(stored)
    count("fault")
    outside = project / "outside"
    before = outside.stat() if outside.exists() else None
    manifest = untouched_manifest(project)
    assert cache.restore(Project(project), manifest.version, names_of(manifest)) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "damaged" in record.message
    assert "running its stage again" in record.message
    assert not stored.exists()
    assert not (project / "executed").exists()
    assert not (project / "results/one" / WEIGHTS).exists()
    after = outside.stat() if outside.exists() else None
    assert (before and (before.st_mtime_ns, before.st_size)) == (
        after and (after.st_mtime_ns, after.st_size)
    )
    assert litter(project) == []


@only_in_full
@pytest.mark.parametrize("attack", [bomb_as_weights, linked_file])
def test_the_workflow_remakes_the_results_of_a_hostile_entry(
    project: Path,
    stored: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    attack: Callable[[Path], None],
) -> None:
    attack(stored)
    count("fault")
    printed = run_workflow(project, "results/one/metrics.jsonl", NANOGPT_CACHE=CACHE)
    assert f"{stored.name}: damaged: " in printed
    assert_is_whole(project, untouched, later=())
    assert not (project / "executed").exists()
    assert not (stored / WEIGHTS).is_symlink()
    entry = read_record(stored / cache.MANIFEST, CacheEntry)
    assert entry.outputs[WEIGHTS] == sha256_file(stored / WEIGHTS)


@only_in_full
@pytest.mark.parametrize("what", ["file", "broken link", "link to itself", "link to a directory"])
def test_an_entry_that_is_not_a_directory_harms_nothing(
    project: Path,
    stored: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    what: str,
) -> None:
    outside = project / "outside"
    stored.rename(outside)
    if what == "file":
        stored.write_text("no directory")
    else:
        targets = {"broken link": "nowhere", "link to itself": stored.name}
        stored.symlink_to(targets.get(what, outside))
    before = outside.stat().st_mtime_ns
    count("fault")
    run_trainer(project, NANOGPT_CACHE=CACHE)
    assert_is_whole(project, untouched, later=())
    assert outside.stat().st_mtime_ns == before, "files outside aren't even touched"
    assert sorted(path.name for path in outside.iterdir()) == [
        "manifest.json",
        "metrics.jsonl",
        "model",
    ]


@only_in_full
def test_a_cache_that_is_a_file_is_only_a_warning(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    (project / "cache").write_text("no directory")
    count("fault")
    printed = run_trainer(project, NANOGPT_CACHE="cache")
    assert printed.startswith("warning: cache: not stored in the cache: ")
    assert_is_whole(project, untouched, later=())


USER = """
import logging, sys
from pathlib import Path
from nanogpt.artifacts import cache
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.project import Project
logging.basicConfig(level=logging.WARNING)
manifest = read_record(Path("untouched.manifest.json"), Manifest)
names = cache.names_in_entry(manifest.outputs, "results/one/train.manifest.json")
mine = Project(Path(f"mine.{sys.argv[1]}"))
source = {path: (Path("source") / Path(path).relative_to("results")).read_bytes()
          for path in names.values()}
for turn in range(int(sys.argv[2])):
    if cache.restore(mine, manifest.version, names) is None:
        for path, content in source.items():
            (mine.root / path).parent.mkdir(parents=True, exist_ok=True)
            (mine.root / path).write_bytes(content)
        cache.store(mine, manifest, names)
    elif turn % 5 == 0:  # as a user who doubts it, or who has no room
        cache.remove(mine.cache / manifest.version)
    for path, content in source.items():
        assert (mine.root / path).read_bytes() == content, path
"""


def test_many_processes_can_restore_store_and_remove_one_version_together(
    project: Path, done_project: Path, count: Callable[[str], None]
) -> None:
    shutil.copytree(done_project / "results", project / "source")
    n_users, turns = (12, 60) if FULL else (4, 20)
    users = [
        subprocess.Popen(
            [sys.executable, "-c", USER, str(number), str(turns)],
            cwd=project,
            env=environment(NANOGPT_CACHE=str(project / CACHE), PYTHONPATH=str(PROJECT)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(n_users)
    ]
    count("fault")
    errors = [user.communicate(timeout=PATIENCE)[1] for user in users]
    assert [user.returncode for user in users] == [0] * n_users, errors
    assert litter(project) == []


def test_cached_results_are_restored_without_training(
    project: Path, stored: Path, untouched: dict[str, object]
) -> None:
    assert stored.exists()
    printed = run_trainer(project, NANOGPT_CACHE=CACHE)
    assert printed.startswith("train one: best validation loss ")
    assert printed.endswith(" (from the cache)\n")
    assert "restored from the cache" in log_of(project)
    assert_is_whole(project, untouched, later=())
