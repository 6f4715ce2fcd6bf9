"""`nanogpt cache` lists unused items, and never removes anything that's in use."""

import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import yaml

from nanogpt.artifacts import cache, manifests, states
from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.manifests import (
    CodeFunctions,
    Environment,
    Manifest,
    TrainingRequest,
)
from nanogpt.cli import pruning
from nanogpt.cli.pruning import DAY, Item, to_prune
from nanogpt.config.loading import load
from nanogpt.config.resolving import resolve_run, run_parameters
from nanogpt.files import locks
from nanogpt.files.atomic import read_json, write_json
from nanogpt.project import HERE, Project

CONFIG = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
runs: {first: {dataset: letters, train: {max_iters: 300, milestones: [100]}}}
"""
CACHE = Path(".nanogpt/cache")
MANIFEST = Manifest(
    stage="eval",
    version="0123456789ab",
    inputs={},
    parameters={},
    code="c",
    outputs={},
    environment=Environment(
        nanogpt="1", python="3", platform="Linux", cpu="a CPU", threads=1, ranks=1
    ),
    wall_seconds=1.0,
)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty working directory with the default cache directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NANOGPT_CACHE", raising=False)
    return tmp_path


@pytest.fixture
def config():
    return load(yaml.safe_load(CONFIG))


def find_items(config):
    return pruning.find_items(HERE, config)


def remove(item):
    pruning.remove(HERE, item)


def make_artifact(seed, size=1000, days=0.0, run="demo"):
    """Make a cache entry, last used some days ago."""
    output = Path(f"results/{run}/eval.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(bytes(size))
    parameters = {"eval": {"seed": seed}}
    manifest = MANIFEST.model_copy(
        update={
            "version": manifests.version("eval", parameters, {}, "c"),
            "parameters": parameters,
            "outputs": manifests.digests(HERE, [str(output)]),
        }
    )
    cache.store(HERE, manifest, {"eval.json": str(output)})
    shutil.rmtree("results")
    entry = CACHE / manifest.version
    age(entry, days)
    return entry


def age(path, days):
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def make_request(config, run="first", version="0123456789ab"):
    settings = run_parameters(resolve_run(config, "first"), ["model", "train"])
    return TrainingRequest(
        stage="train",
        version=version,
        inputs={},
        parameters=settings,
        code="c",
        run=run,
        settings=settings,
    )


def make_state(config, run="first", steps=(5,), version="0123456789ab"):
    directory = HERE.states / version
    directory.mkdir(parents=True)
    write_record(directory / "run.json", make_request(config, run, version))
    for step in steps:
        (directory / f"step-{step}.0123456789abcdef.safetensors").write_bytes(bytes(100))
    return directory


def change_request(directory, **changes):
    write_json(directory / "run.json", {**read_json(directory / "run.json"), **changes})


def make_result(path, outputs=None):
    path = Path(path)
    write_json(path / "eval.json", {})
    outputs = {f"{path}/eval.json": "a digest"} if outputs is None else outputs
    manifest = MANIFEST.model_copy(update={"outputs": outputs})
    write_record(path / "eval.manifest.json", manifest)
    return path


def unused(items):
    return {item.path: item.unused for item in items if item.unused}


def everything():
    return sorted(path for path in Path().rglob("*"))


# --- Listing --------------------------------------------------------------------------------


def test_empty_project_has_no_items(config):
    assert find_items(config) == []
    assert everything() == []


def test_artifact_has_its_stage_size_and_last_use(config):
    entry = make_artifact(1, size=5000, days=3)
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("artifact", entry, "")
    assert item.what == f"eval {entry.name}, first made in results/demo"
    assert item.size == 5000 + (entry / "manifest.json").stat().st_size
    assert item.age == pytest.approx(3 * DAY, abs=60)
    cache.restore(HERE, entry.name, {"eval.json": "results/demo/eval.json"})
    assert find_items(config)[0].age < 60


def test_disabled_cache_is_ignored(config, monkeypatch):
    make_artifact(1)
    monkeypatch.setenv("NANOGPT_CACHE", "off")
    assert find_items(config) == []


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff", b"[1]", b"{}", b"[" * 100_000],
    ids=["absent", "empty", "not text", "a list", "nothing", "deep"],
)
def test_artifact_with_an_unreadable_manifest_is_damaged(config, content):
    entry = make_artifact(1)
    (entry / "manifest.json").unlink()
    if content is not None:
        (entry / "manifest.json").write_bytes(content)
    assert unused(find_items(config)) == {entry: "damaged"}


def test_artifact_with_a_later_format_is_kept(config):
    entry = make_artifact(1)
    content = read_json(entry / "manifest.json")
    write_json(entry / "manifest.json", {**content, "format": 2})
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("artifact", entry, "")
    assert item.what == f"{entry.name}, from a later version of nanogpt"


@pytest.mark.parametrize(("days", "why"), [(0.5, ""), (2, "left by a killed process")])
def test_unfinished_cache_entry_is_kept_for_a_day(config, days, why):
    left = CACHE / ".0123456789ab.x7f3"
    left.mkdir(parents=True)
    age(left, days)
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("remains", left, why)


def test_state_is_listed_with_its_run_and_step(config):
    directory = make_state(config, steps=(5, 10))
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("state", directory, "")
    assert item.what == "first, step 10"
    assert item.size >= 200


def test_age_of_a_state_is_the_time_since_its_last_save(config):
    directory = make_state(config, steps=(5, 10))
    age(directory, 30)
    age(next(directory.glob("step-5.*")), 20)
    age(next(directory.glob("step-10.*")), 2)
    assert find_items(config)[0].age == pytest.approx(2 * DAY, abs=60)


STATES = {
    "of no run": ({"run": "gone"}, "no such run in config.yaml"),
    "other settings": (
        {"settings": {"train": {"max_iters": 5}}},
        "config.yaml now has other settings for this run",
    ),
    "settings that aren't an object": ({"settings": None}, "has no run"),
    "a run that isn't text": ({"run": 5}, "has no run"),
}


@pytest.mark.parametrize(("changes", "why"), STATES.values(), ids=STATES.keys())
def test_state_that_config_no_longer_has_is_unused(config, changes, why):
    directory = make_state(config)
    change_request(directory, **changes)
    assert unused(find_items(config)) == {directory: why}


def test_state_with_a_later_format_is_kept(config):
    directory = make_state(config)
    change_request(directory, format=2)
    (item,) = find_items(config)
    assert (item.kind, item.path, item.unused) == ("state", directory, "")
    assert item.what == "from a later version of nanogpt"


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("max_iters: 300", ""),
        ("max_iters: 301", "config.yaml now has other settings for this run"),
        ("max_iters: 300, lr_decay_iters: 300", ""),
        ("max_iters: 300, lr_decay_iters: 200", "config.yaml now has other settings for this run"),
    ],
)
def test_state_is_compared_by_its_resolved_settings(config, setting, why):
    make_state(config)
    (item,) = find_items(load(yaml.safe_load(CONFIG.replace("max_iters: 300", setting))))
    assert item.unused == why


def test_setting_that_does_not_affect_training_keeps_the_state(config):
    make_state(config)
    other = yaml.safe_load(CONFIG.replace("train:", "sample: {seed: 5}, train:"))
    assert unused(find_items(load(other))) == {}


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[1]", b"{}", b"[" * 100_000])
def test_state_with_a_damaged_request_is_unused(config, content):
    directory = make_state(config)
    (directory / "run.json").unlink()
    if content is not None:
        (directory / "run.json").write_bytes(content)
    assert unused(find_items(config)) == {directory: "has no run"}


def test_state_with_unknown_settings_is_unused(config):
    directory = make_state(config)
    request = json.loads((directory / "run.json").read_text())
    settings = {**request["settings"], "later": {"size": 1}}
    (directory / "run.json").write_text(json.dumps({**request, "settings": settings}))
    why = "has settings that this version of nanogpt doesn't know"
    assert unused(find_items(config)) == {directory: why}


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b"])
def test_a_damaged_claim_is_listed(config, content):
    HERE.claims.mkdir(parents=True)
    (HERE.claims / "gone").write_bytes(content)
    assert unused(find_items(config)) == {HERE.claims / "gone": "no such run in config.yaml"}


@pytest.mark.parametrize("run", ["first", "gone"])
def test_state_in_training_is_in_use_with_any_config(config, run):
    directory = make_state(config, run)
    with locks.hold(directory, "training"):
        (item,) = find_items(config)
        assert (item.what, item.unused) == (f"{run}, step 5, in training now", "")
    assert find_items(config)[0].what == f"{run}, step 5"


def test_new_state_is_in_use(config):
    # Its process has the lock but hasn't written its request yet.
    directory = HERE.states / "0123456789ab"
    with locks.hold(directory, "training first"):
        assert unused(find_items(config)) == {}


@pytest.mark.parametrize(("days", "trained"), [(0, True), (10, False)])
def test_state_of_another_machine_is_in_use_while_its_owner_may_be_alive(config, days, trained):
    # A machine also counts as a different one after a reboot.
    directory = make_state(config, "gone")
    owner = {"pid": 1, "started": "1", "machine": "elsewhere"}
    (directory / "lock.1").write_text(json.dumps(owner))
    age(directory / "lock.1", days)
    assert bool(unused(find_items(config))) == (not trained)


def test_remains_of_a_finished_training_are_unused(config):
    left = HERE.states / ".0123456789ab.77"
    left.mkdir(parents=True)
    assert unused(find_items(config)) == {left: "the training is finished"}


def test_claim_of_a_run_that_config_no_longer_has_is_unused(config):
    HERE.claims.mkdir(parents=True)
    for run in ("first", "letters", "gone"):
        (HERE.claims / run).write_text("0123456789ab")
    assert unused(find_items(config)) == {HERE.claims / "gone": "no such run in config.yaml"}
    assert len(find_items(config)) == 1, "the others aren't worth a line"


def test_results_that_config_no_longer_has_are_unused(config):
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


def test_directories_without_manifests_are_not_listed(config):
    for path in ("results/mine/notes.txt", "results/datasets/mine/train.bin", "results/README.md"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("mine")
    assert find_items(config) == []


INTERRUPTED = {
    "one file": ["prepare.log", ".train.bin.x7f3abcd.tmp"],
    "one file, encoded": ["prepare.log", "train.bin", "val.bin", "tokenizer.json", "meta.json"],
    "many files": ["groups/plan.json", "groups/000/count.log", "groups/000/.train.bin.x7f3.tmp"],
    "shards": [
        *(f"groups/{name}" for name in ("000/count.log", "kept.npy", "000/totals.json")),
        *("groups/000/encode.log", "train.000.bin", "val.000.bin", "train.1000.bin"),
    ],
}


@pytest.mark.parametrize("names", INTERRUPTED.values(), ids=INTERRUPTED.keys())
def test_an_interrupted_dataset_that_config_no_longer_has_is_removed(config, names):
    for dataset in ("gone", "letters"):
        for path in (Path(f"results/datasets/{dataset}", name) for name in names):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(1000))
    gone = Path("results/datasets/gone")
    (found,) = find_items(config)
    assert (found.path, found.unused) == (gone, "no such dataset in config.yaml")
    assert found.size == 1000 * len(names)
    (gone / "groups").mkdir(exist_ok=True)
    mine = [gone / "train.notes.bin", gone / "groups/notes.txt"]
    for path in mine:
        path.write_text("mine")
    remove(found)
    assert sorted(path for path in gone.rglob("*") if path.is_file()) == sorted(mine)
    assert all(Path("results/datasets/letters", name).exists() for name in names)


def test_a_dataset_is_kept_while_snakemake_may_prepare_it(config):
    log = Path("results/datasets/gone/prepare.log")
    log.parent.mkdir(parents=True)
    log.write_text("")
    with locks.hold(HERE.invocations / "here-1", "running the workflow"):
        assert find_items(config) == []
    assert unused(find_items(config)) == {log.parent: "no such dataset in config.yaml"}


def test_items_are_sorted_by_kind_and_age(config):
    make_result("results/gone")
    old, new = make_artifact(1, days=5), make_artifact(2, days=1)
    make_result("results/gone")
    later = make_state(config, version="0" * 12)
    earlier = make_state(config, version="1" * 12)
    for path in [earlier, *earlier.iterdir()]:
        age(path, 3)
    left = HERE.states / ".0123456789ab.77"
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


def test_listing_survives_files_that_vanish(config):
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


def make_note(code, days=2.0):
    """Write the record of a code version, some days old."""
    path = HERE.code / f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.json"
    write_record(path, CodeFunctions(code=code, modules={}))
    age(path, days)
    return path


def test_code_records_are_kept_while_something_made_by_them_exists(config):
    result, entry, state = make_result("results/first"), make_artifact(1), make_state(config)
    make_result("results/first")  # make_artifact removed results/
    note, other = make_note("c"), make_note("another")
    young = make_note("of a job that runs", days=0.5)
    assert {one.path for one in find_items(config) if one.path.suffix == ".json"} == {other}
    assert unused(find_items(config))[other] == "nothing made by it exists any more"
    for made in (result / "eval.manifest.json", entry / "manifest.json", state / "run.json"):
        assert note not in unused(find_items(config))
        made.unlink()
    assert unused(find_items(config))[note]
    for found in to_prune(find_items(config), None, None, results=False):
        remove(found)
    assert not note.exists()
    assert not other.exists()
    assert young.exists()


def test_damaged_code_records_are_unused(config):
    note = make_note("c")
    note.write_text("{")
    age(note, 2)
    assert unused(find_items(config)) == {note: "damaged"}


# --- Pruning --------------------------------------------------------------------------------


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
def test_prune_chooses_unused_items_and_least_recently_used_artifacts(older_than, max_size, names):
    chosen = to_prune(ITEMS, older_than, max_size, True)
    assert [item.what for item in chosen] == names


def test_results_are_only_pruned_on_request():
    chosen = [item.what for item in to_prune(ITEMS, None, None, False)]
    assert chosen == ["damaged", "old state"]


def test_users_file_among_results_is_kept(config):
    run = make_result("results/gone")
    (run / "notes.txt").write_text("mine")
    assert (run / "eval.json").exists()
    (found,) = find_items(config)
    remove(found)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_manifest_with_outside_paths_removes_nothing_there(config):
    make_result("results/gone", outputs={"precious.txt": "", "../x": ""})
    Path("precious.txt").write_text("mine")
    remove(find_items(config)[0])
    assert Path("precious.txt").exists()


def test_claim_of_a_run_in_training_is_kept(config):
    with states.hold(HERE, make_request(config, "gone")):
        assert not [found for found in find_items(config) if found.unused]


def test_remove_deletes_the_item_and_nothing_else(config):
    run, kept = make_result("results/gone"), make_result("results/first")
    old, stays = make_state(config, "gone", version="0" * 12), make_state(config)
    claim = HERE.claims / "gone"
    claim.parent.mkdir()
    claim.write_text("0" * 12)
    for found in to_prune(find_items(config), None, None, True):
        remove(found)
    assert not any(path.exists() for path in (run, old, claim))
    assert all(path.exists() for path in (kept / "eval.json", stays / "run.json"))


def test_link_is_removed_but_not_its_target(config):
    elsewhere = make_result("elsewhere")
    Path("results").mkdir()
    Path("results/gone").symlink_to(elsewhere.absolute())
    (found,) = find_items(config)
    assert found.path == Path("results/gone")
    remove(found)
    assert not os.path.lexists("results/gone")
    assert (elsewhere / "eval.json").exists()


def test_removing_a_vanished_item_is_no_error():
    remove(item("nowhere"))


def test_prune_works_outside_the_working_directory(config, tmp_path, monkeypatch):
    make_artifact(1)
    state, result = make_state(config, "gone"), make_result("results/gone")
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    project = Project(tmp_path)
    items = pruning.find_items(project, config)
    assert {item.kind for item in items} == {"artifact", "state", "result"}
    for found in pruning.to_prune(items, None, None, results=True):
        pruning.remove(project, found)
    assert not (tmp_path / state).exists()
    assert not (tmp_path / result).exists()
    assert list(outside.iterdir()) == []


OTHER = "config.yaml now has other settings for this run"


def begins_with(source):
    """A config with a run `first` that starts from `source`, and a run `other`."""
    first = {"dataset": "letters", "train": {"init_from": source}}
    return load(
        {**yaml.safe_load(CONFIG), "runs": {"first": first, "other": {"dataset": "letters"}}}
    )


@pytest.mark.parametrize(("source", "unused"), [("other", ""), (None, OTHER), ("./gone", OTHER)])
def test_state_with_another_initial_model_is_unused(source, unused):
    state = make_state(begins_with("other"))
    change_request(state, inputs={"results/other/model/model.safetensors": "0" * 64})
    (item,) = find_items(begins_with(source))
    assert item.unused == unused


def test_state_is_kept_while_its_initial_model_is_missing():
    state = make_state(begins_with(None))
    change_request(state, inputs={"mine/base/model.safetensors": "0" * 64})
    (item,) = find_items(begins_with("mine/base"))
    assert not item.unused
