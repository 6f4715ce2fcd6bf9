"""What takes space is listed; what a config still names, or a process uses, never goes."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import yaml

from nanogpt.artifacts import cache
from nanogpt.artifacts import manifests as manifest
from nanogpt.artifacts import states as state
from nanogpt.cli.pruning import DAY, Item, find_items, remove, to_prune
from nanogpt.config.loading import load
from nanogpt.config.resolving import resolve_run
from nanogpt.files import locks as lock
from nanogpt.files.atomic import write_json

CONFIG = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
runs: {first: {dataset: letters, train: {max_iters: 300, milestones: [100]}}}
"""
CACHE = Path(".nanogpt/cache")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty working directory, with the cache at its default place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    return tmp_path


@pytest.fixture
def config():
    return load(yaml.safe_load(CONFIG))


def settings_of(config, run="first"):
    """A run's settings as its training is asked for them."""
    return resolve_run(config, run).model_dump(include={"model", "train"})


def make_artifact(seed, size=1000, days=0.0, run="demo"):
    """An entry of the cache, last used some days ago."""
    output = Path(f"results/{run}/eval.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(bytes(size))
    asked = ("eval", {"eval": {"seed": seed}}, {}, "c")
    said = {
        "stage": "eval",
        "version": manifest.version(*asked),
        "inputs": {},
        "parameters": asked[1],
        "code": "c",
        "outputs": manifest.digests([str(output)]),
        "environment": {},
        "wall_seconds": 1.0,
    }
    cache.store(said, {"eval.json": output})
    shutil.rmtree("results")
    entry = CACHE / said["version"]
    age(entry, days)
    return entry


def age(path, days):
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def make_state(config, run="first", steps=(5,), version="0123456789ab", **said):
    asked = {"stage": "train", "version": version, "inputs": {}, "parameters": {}, "code": "c"}
    settings = settings_of(config, run) if run == "first" else {}
    directory = state.STATE / version
    write_json(directory / "run.json", {"run": run, **asked, "settings": settings, **said})
    for step in steps:
        (directory / f"step-{step}.0123456789abcdef.safetensors").write_bytes(bytes(100))
    return directory


def make_result(path):
    write_json(Path(path) / "eval.json", {})
    outputs = {f"{path}/eval.json": "a digest"}
    write_json(Path(path) / "eval.manifest.json", {"outputs": outputs})
    return Path(path)


def unused(items):
    return {item.path: item.unused for item in items if item.unused}


def everything():
    return sorted(path for path in Path().rglob("*"))


# --- What is listed -------------------------------------------------------------------------


def test_in_an_empty_project_there_is_nothing(config):
    assert find_items(config) == []
    assert everything() == []


def test_an_artifact_is_listed_with_its_stage_size_and_the_time_of_its_last_use(config):
    entry = make_artifact(1, size=5000, days=3)
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("artifact", entry, "")
    assert item.what == f"eval {entry.name}, first made in results/demo"
    assert item.size == 5000 + (entry / "manifest.json").stat().st_size
    assert item.age == pytest.approx(3 * DAY, abs=60)
    cache.restore(entry.name, {"eval.json": Path("results/demo/eval.json")})
    assert find_items(config)[0].age < 60


def test_a_cache_that_is_off_is_not_looked_at(config, monkeypatch):
    make_artifact(1)
    monkeypatch.setenv("NANOGPT_CACHE", "off")
    assert find_items(config) == []


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff", b"[1]", b"{}", b"[" * 100_000],
    ids=["absent", "empty", "no text", "a list", "nothing", "deep"],
)
def test_an_artifact_whose_manifest_cannot_be_read_is_damaged(config, content):
    entry = make_artifact(1)
    (entry / "manifest.json").unlink()
    if content is not None:
        (entry / "manifest.json").write_bytes(content)
    assert unused(find_items(config)) == {entry: "damaged"}


@pytest.mark.parametrize(("days", "why"), [(0.5, ""), (2, "left by a process that was killed")])
def test_what_is_just_being_stored_is_left_alone_for_a_day(config, days, why):
    left = CACHE / ".0123456789ab.x7f3"
    left.mkdir(parents=True)
    age(left, days)
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("remains", left, why)


def test_a_state_is_listed_with_its_run_and_step(config):
    directory = make_state(config, steps=(5, 10))
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("state", directory, "")
    assert item.what == "first, step 10"
    assert item.size >= 200


def test_the_age_of_a_state_is_that_of_what_it_saved_last(config):
    directory = make_state(config, steps=(5, 10))
    age(directory, 30)
    age(next(directory.glob("step-5.*")), 20)
    age(next(directory.glob("step-10.*")), 2)
    assert find_items(config)[0].age == pytest.approx(2 * DAY, abs=60)


STATES = {
    "of no run": ({"run": "gone"}, "no such run in config.yaml"),
    "other settings": (
        {"settings": {"train": {"max_iters": 5}}},
        "config.yaml has other settings for this run now",
    ),
    "settings of no kind": ({"settings": None}, "of no run"),
}


@pytest.mark.parametrize(("said", "why"), STATES.values(), ids=STATES.keys())
def test_a_state_that_no_config_names_may_go(config, said, why):
    directory = make_state(config, **said)
    assert unused(find_items(config)) == {directory: why}


def test_a_setting_that_trains_nothing_leaves_a_state_in_use(config):
    make_state(config)
    other = yaml.safe_load(CONFIG.replace("train:", "sample: {seed: 5}, train:"))
    assert unused(find_items(load(other))) == {}


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[1]", b"{}", b"[" * 100_000])
def test_a_state_that_does_not_say_what_it_is_of_may_go(config, content):
    directory = make_state(config)
    (directory / "run.json").unlink()
    if content is not None:
        (directory / "run.json").write_bytes(content)
    assert unused(find_items(config)) == {directory: "of no run"}


@pytest.mark.parametrize("run", ["first", "gone"])
def test_a_state_that_is_being_trained_is_in_use_whatever_the_config_says(config, run):
    directory = make_state(config, run)
    with lock.hold(directory, "which trains"):
        (item,) = find_items(config)
        assert (item.what, item.unused) == (f"{run}, step 5, which is being trained", "")
    assert find_items(config)[0].what == f"{run}, step 5"


def test_a_state_that_was_just_made_is_in_use(config):
    # Its process has the lock, and waits for another one whose state it adopts.
    directory = state.STATE / "0123456789ab"
    with lock.hold(directory, "which trains first"):
        assert unused(find_items(config)) == {}


@pytest.mark.parametrize(("days", "trained"), [(0, True), (10, False)])
def test_a_state_of_another_machine_is_in_use_while_its_owner_may_live(config, days, trained):
    # After a boot, a machine is another one as well.
    directory = make_state(config, "gone")
    owner = {"pid": 1, "started": "1", "machine": "elsewhere"}
    (directory / "lock.1").write_text(json.dumps(owner))
    age(directory / "lock.1", days)
    assert bool(unused(find_items(config))) == (not trained)


def test_what_is_left_of_a_state_whose_training_is_done_may_go(config):
    left = state.STATE / ".0123456789ab.77"
    left.mkdir(parents=True)
    assert unused(find_items(config)) == {left: "the training is done"}


def test_the_claim_of_a_run_that_no_config_names_may_go(config):
    state.CLAIMS.mkdir(parents=True)
    for run in ("first", "letters", "gone"):
        (state.CLAIMS / run).write_text("0123456789ab")
    assert unused(find_items(config)) == {state.CLAIMS / "gone": "no such run in config.yaml"}
    assert len(find_items(config)) == 1, "the others are too small to tell"


def test_results_of_runs_and_datasets_that_no_config_names_may_go(config):
    for known in ("first", "letters", "report", "datasets/letters"):
        make_result(f"results/{known}")
    run, dataset = make_result("results/gone"), make_result("results/datasets/first")
    found = find_items(config)
    assert unused(found) == {
        run: "no such run in config.yaml",
        dataset: "no such dataset in config.yaml",
    }
    assert {(item.kind, item.what) for item in found} == {
        ("result", "results/gone"),
        ("result", "results/datasets/first"),
    }


def test_what_others_put_among_the_results_is_not_ours(config):
    for path in ("results/mine/notes.txt", "results/datasets/mine/train.bin", "results/README.md"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("mine")
    assert find_items(config) == []


def test_kinds_come_one_after_another_and_each_oldest_first(config):
    make_result("results/gone")
    old, new = make_artifact(1, days=5), make_artifact(2, days=1)
    make_result("results/gone")
    later = make_state(config, version="0" * 12)
    earlier = make_state(config, version="1" * 12)
    for path in [earlier, *earlier.iterdir()]:
        age(path, 3)
    left = state.STATE / ".0123456789ab.77"
    left.mkdir()
    assert [item.path for item in find_items(config)] == [
        old,
        new,
        earlier,
        later,
        Path("results/gone"),
        left,
    ]


def test_listing_changes_nothing(config):
    make_artifact(1)
    make_state(config, "gone")
    make_result("results/gone")
    before = {path: path.stat() for path in everything()}
    find_items(config)
    assert {path: path.stat().st_mtime for path in everything()} == {
        path: was.st_mtime for path, was in before.items()
    }


def test_files_may_go_while_they_are_listed(config):
    directory = make_state(config)
    CACHE.mkdir(parents=True)
    done = threading.Event()

    def come_and_go():
        while not done.is_set():
            for number in range(50):
                (directory / f"step-{number}.tmp").touch()
            (CACHE / ".0123456789ab.x" / "entry" / "model").mkdir(parents=True)
            (CACHE / ".0123456789ab.x").rename(CACHE / ".0123456789ab.y")
            shutil.rmtree(CACHE / ".0123456789ab.y")
            for path in directory.glob("*.tmp"):
                path.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(100):
            find_items(config)
    finally:
        done.set()
        thread.join()


# --- What is pruned -------------------------------------------------------------------------


def item(name, kind="artifact", size=100, age=0.0, unused=""):
    return Item(kind, Path(name), size, age, name, unused)


ITEMS = [
    item("a", age=30, size=400),
    item("b", age=20, size=300),
    item("damaged", age=1, size=1000, unused="damaged"),
    item("c", age=10, size=200),
    item("state", "state", age=100),
    item("old state", "state", age=100, unused="no such run in config.yaml"),
    item("result", "result", age=50, unused="no such run in config.yaml"),
    item("being stored", "remains", age=50),
]
UNUSED = ["damaged", "old state", "result"]

CHOICES = {
    "what is unused": (None, None, UNUSED),
    "and what is older": (15, None, [*UNUSED, "a", "b"]),
    "nothing is that old": (30, None, UNUSED),
    "all is older": (0, None, [*UNUSED, "a", "b", "c"]),
    "what is too much": (None, 500, [*UNUSED, "a"]),
    "one byte too much": (None, 499, [*UNUSED, "a", "b"]),
    "there is room": (None, 900, UNUSED),
    "no room": (None, 0, [*UNUSED, "a", "b", "c"]),
    "what is older makes room": (25, 500, [*UNUSED, "a"]),
    "and more must go": (25, 200, [*UNUSED, "a", "b"]),
}


@pytest.mark.parametrize(("older_than", "max_size", "names"), CHOICES.values(), ids=CHOICES.keys())
def test_what_goes_is_what_is_unused_and_the_artifacts_used_longest_ago(
    older_than, max_size, names
):
    chosen = to_prune(ITEMS, older_than, max_size, True)
    assert [item.what for item in chosen] == names


def test_results_go_only_when_that_is_asked_for():
    chosen = [item.what for item in to_prune(ITEMS, None, None, False)]
    assert chosen == ["damaged", "old state"]


def test_a_file_of_the_users_beside_results_stays(config):
    run = make_result("results/gone")
    (run / "notes.txt").write_text("mine")
    assert (run / "eval.json").exists()
    (found,) = find_items(config)
    remove(found)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_a_manifest_that_names_files_elsewhere_lets_none_be_removed(config):
    run = make_result("results/gone")
    Path("precious.txt").write_text("mine")
    write_json(run / "eval.manifest.json", {"outputs": {"precious.txt": "", "../x": ""}})
    remove(find_items(config)[0])
    assert Path("precious.txt").exists()


def test_the_claim_of_a_run_that_is_trained_stays(config):
    with state.hold("gone", {"version": "0" * 12}, {}):
        assert not [found for found in find_items(config) if found.unused]


def test_what_is_removed_is_gone_and_nothing_else(config):
    run, kept = make_result("results/gone"), make_result("results/first")
    old, stays = make_state(config, "gone", version="0" * 12), make_state(config)
    claim = state.CLAIMS / "gone"
    claim.parent.mkdir()
    claim.write_text("0" * 12)
    for found in to_prune(find_items(config), None, None, True):
        remove(found)
    assert not any(path.exists() for path in (run, old, claim))
    assert all(path.exists() for path in (kept / "eval.json", stays / "run.json"))


def test_a_link_is_removed_and_not_what_it_leads_to(config):
    elsewhere = make_result("elsewhere")
    Path("results").mkdir()
    Path("results/gone").symlink_to(elsewhere.absolute())
    (found,) = find_items(config)
    assert found.path == Path("results/gone")
    remove(found)
    assert not os.path.lexists("results/gone")
    assert (elsewhere / "eval.json").exists()


def test_what_has_gone_meanwhile_needs_no_removal():
    remove(item("nowhere"))
