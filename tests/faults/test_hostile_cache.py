"""An entry of the cache that is damaged or hostile is told, removed and made again, never used."""

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
from nanogpt.files.atomic import read_json, sha256_file
from tests.faults.attacks import (
    FULL,
    PATIENCE,
    ROOT,
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
    """Unpickled, it leaves a file in the working directory."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch executed",))


@pytest.fixture
def stored(project: Path, done_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The entry of the training in a project's cache; its results are gone."""
    said = read_json(done_project / "untouched.manifest.json")
    run = done_project / "results/one"
    named = cache.names_in_entry(said["outputs"], "results/one/train.manifest.json")
    monkeypatch.setenv("NANOGPT_CACHE", str(project / CACHE))
    outputs = {name: run / name for name in named}
    digests = {str(run / name): said["outputs"][str(path)] for name, path in named.items()}
    cache.store({**said, "outputs": digests}, outputs)
    entry = project / CACHE / said["version"]
    assert entry.is_dir()
    return entry


def edit_manifest(entry: Path, edit: Callable[[dict], object]) -> None:
    said = read_json(entry / cache.MANIFEST)
    edit(said)
    (entry / cache.MANIFEST).write_text(json.dumps(said))


def rename_output(entry: Path, name: str, *, copied_to: Path | None = None) -> None:
    def rename(said: dict) -> None:
        said["outputs"][name] = said["outputs"].pop(WEIGHTS)

    edit_manifest(entry, rename)
    if copied_to:
        shutil.copy(entry / WEIGHTS, copied_to)


def flipped(entry: Path) -> None:
    written = bytearray((entry / WEIGHTS).read_bytes())
    written[-1] ^= 1
    (entry / WEIGHTS).write_bytes(written)


def linked_file(entry: Path) -> None:
    """The link's target even has the right bytes."""
    outside = entry.parents[2] / "outside"
    (entry / WEIGHTS).rename(outside)
    (entry / WEIGHTS).symlink_to(outside)


def linked_manifest(entry: Path) -> None:
    outside = entry.parents[2] / "outside"
    (entry / cache.MANIFEST).rename(outside)
    (entry / cache.MANIFEST).symlink_to(outside)


def pipe(entry: Path) -> None:
    """Opening it would wait for a writer for ever."""
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
    edit_manifest(entry, lambda said: said["outputs"].update({"../../../outside": "0" * 64}))


def bomb_as_weights(entry: Path) -> None:
    (entry / WEIGHTS).write_bytes(pickle.dumps(Bomb()))


def manifest_of_another_version(entry: Path) -> None:
    edit_manifest(entry, lambda said: said["parameters"]["train"].update(seed=2))


def manifest_that_is_a_bomb(entry: Path) -> None:
    (entry / cache.MANIFEST).write_bytes(pickle.dumps(Bomb()))


def manifest_that_nests_deeply(entry: Path) -> None:
    (entry / cache.MANIFEST).write_text("[" * 100_000)


def manifest_of_a_list(entry: Path) -> None:
    (entry / cache.MANIFEST).write_text("[]")


def outputs_that_are_a_list(entry: Path) -> None:
    edit_manifest(entry, lambda said: said.update(outputs=[WEIGHTS]))


def digests_that_are_no_text(entry: Path) -> None:
    edit_manifest(entry, lambda said: said["outputs"].update({WEIGHTS: None}))


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
    digests_that_are_no_text,
    missing_file,
    missing_manifest,
    emptied,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_hostile_entry_is_told_and_removed_and_nothing_of_it_is_used(
    project: Path,
    stored: Path,
    count: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    attack: Callable[[Path], None],
) -> None:
    attack(stored)
    count("fault")
    outside = project / "outside"
    before = outside.stat() if outside.exists() else None
    monkeypatch.chdir(project)
    said = read_json("untouched.manifest.json")
    named = cache.names_in_entry(said["outputs"], "results/one/train.manifest.json")
    assert cache.restore(said["version"], named) is None
    monkeypatch.undo()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "damaged" in record.message
    assert "made again" in record.message
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
def test_the_workflow_makes_again_what_a_hostile_entry_has(
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
    said = read_json(stored / cache.MANIFEST)
    assert said["outputs"][WEIGHTS] == sha256_file(stored / WEIGHTS)


@only_in_full
@pytest.mark.parametrize("what", ["file", "broken link", "link to itself", "link to a directory"])
def test_an_entry_that_is_no_directory_harms_nothing(
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
    assert outside.stat().st_mtime_ns == before, "what lies outside is not even touched"
    assert sorted(path.name for path in outside.iterdir()) == [
        "manifest.json",
        "metrics.jsonl",
        "model",
    ]


@only_in_full
def test_a_cache_that_is_a_file_is_a_warning(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    (project / "cache").write_text("no directory")
    count("fault")
    printed = run_trainer(project, NANOGPT_CACHE="cache")
    assert printed.startswith("warning: cache: not stored in the cache: ")
    assert_is_whole(project, untouched, later=())


USER = """
import json, logging, sys
from pathlib import Path
from nanogpt.artifacts import cache
logging.basicConfig(level=logging.WARNING)
said = json.loads(Path("untouched.manifest.json").read_text())
mine = Path(f"mine.{sys.argv[1]}")
for turn in range(int(sys.argv[2])):
    names = cache.names_in_entry(said["outputs"], "results/one/train.manifest.json")
    outputs = {name: mine / path for name, path in names.items()}
    restored = cache.restore(said["version"], outputs)
    if restored is None:
        for name, path in names.items():
            outputs[name].parent.mkdir(parents=True, exist_ok=True)
            outputs[name].write_bytes((Path("source") / path.relative_to("results")).read_bytes())
        digests = {str(outputs[name]): said["outputs"][str(path)] for name, path in names.items()}
        cache.store({**said, "outputs": digests}, outputs)
    elif turn % 5 == 0:  # as a user who doubts it, or who has no room
        cache.remove(cache.directory() / said["version"])
    for name, path in names.items():
        made = (Path("source") / path.relative_to("results")).read_bytes()
        assert outputs[name].read_bytes() == made, name
"""


def test_many_processes_restore_store_and_remove_one_version_at_the_same_time(
    project: Path, done_project: Path, count: Callable[[str], None]
) -> None:
    shutil.copytree(done_project / "results", project / "source")
    n_users, turns = (12, 60) if FULL else (4, 20)
    users = [
        subprocess.Popen(
            [sys.executable, "-c", USER, str(number), str(turns)],
            cwd=project,
            env=environment(NANOGPT_CACHE=CACHE, PYTHONPATH=str(ROOT)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(n_users)
    ]
    count("fault")
    errors = [user.communicate(timeout=PATIENCE)[1] for user in users]
    assert [user.returncode for user in users] == [0] * n_users, errors
    assert litter(project) == []


def test_what_is_in_the_cache_is_restored_without_training(
    project: Path, stored: Path, untouched: dict[str, object]
) -> None:
    assert stored.exists()
    printed = run_trainer(project, NANOGPT_CACHE=CACHE)
    assert printed.startswith("train one: best validation loss ")
    assert printed.endswith(" (from the cache)\n")
    assert "restored from the cache" in log_of(project)
    assert_is_whole(project, untouched, later=())
