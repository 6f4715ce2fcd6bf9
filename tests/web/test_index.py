"""The index of runs: their states, what's read again, and a file that can be lost."""

import builtins
import io
import os
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nanogpt.files import locks
from nanogpt.project import Project
from nanogpt.web import index as index_module
from nanogpt.web.index import Index
from nanogpt.web.site import Site
from tests.made_runs import change, make_run, make_training, write_meta

ERROR = "2026-11-28 15:57:01,111 ERROR {}\n"


@pytest.fixture(autouse=True)
def always_look(monkeypatch):
    monkeypatch.setattr(index_module, "LOOK", 0.0)


@pytest.fixture
def root(site: Site) -> Path:
    return site.project.root


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of runs, in the order in which their files are read."""
    names = []
    read = index_module.read_entry

    def counted(files):
        names.append(files.name)
        return read(files)

    monkeypatch.setattr(index_module, "read_entry", counted)
    return names


def entries(index: Index) -> dict:
    return {entry.name: entry for entry in index.listing().entries}


def log_error(directory: Path, stage: str, *messages: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    text = "".join(ERROR.format(message) for message in messages)
    (directory / f"{stage}.log").write_text(text)


def lock_outputs(root: Path, *paths: str) -> None:
    """Write what Snakemake writes when it's about to make files."""
    directory = root / ".snakemake/locks"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "0.output.lock").write_text("\n".join(paths) + "\n")


def age(seconds: float, *paths: Path) -> None:
    then = time.time() - seconds
    for path in paths:
        os.utime(path, (then, then))


# --- States -----------------------------------------------------------------------------------


def test_a_finished_run(site, root):
    make_run(root, "demo", val_loss=0.6, train={"max_iters": 400})
    entry = entries(Index(site))["demo"]
    assert (entry.status, entry.dataset, entry.note) == ("finished", "play", "")
    assert (entry.step, entry.max_iters) == (400, 400)
    assert entry.best_val_loss == pytest.approx(0.6183, abs=1e-4)
    assert entry.bits_per_byte == 0.88
    assert entry.seconds_left is None
    assert entry.updated == pytest.approx(time.time(), abs=60)


def test_a_diverged_run_keeps_its_finite_losses(site, root):
    make_run(root, "demo", diverges_at=200)
    entry = entries(Index(site))["demo"]
    assert entry.status == "diverged"
    assert entry.best_val_loss == pytest.approx(0.6 + 0.3679, abs=1e-3)


def test_a_training_has_its_time_left_and_is_stopped_afterwards(site, root):
    write_meta(root, "play")
    state = make_training(root, "demo", last_step=200, train={"max_iters": 400})
    index = Index(site)
    with locks.hold(state, "training demo"):
        entry = entries(index)["demo"]
        assert (entry.status, entry.step, entry.max_iters) == ("training", 200, 400)
        assert entry.seconds_left == pytest.approx(100)
        assert entry.heartbeat == pytest.approx(time.time(), abs=60)
    entry = entries(index)["demo"]
    assert (entry.status, entry.seconds_left, entry.heartbeat) == ("stopped", None, None)


def test_a_training_without_a_sign_of_life_is_stalled_until_the_next_one(site, root):
    state = make_training(root, "demo")
    index = Index(site)
    with locks.hold(state, "training demo"):
        files = [*state.glob("lock.*"), state / "run.json", state / "metrics.jsonl"]
        age(locks.STALE - 30, *files)
        assert entries(index)["demo"].status == "training"
        age(locks.STALE + 30, *files)
        assert entries(Index(site))["demo"].status == "stalled"
        age(0, state / "metrics.jsonl")
        assert entries(index)["demo"].status == "training"


def test_another_machines_slow_clock_is_no_stall(site, root):
    state = make_training(root, "demo")
    index = Index(site)
    with locks.hold(state, "training demo"):
        files = [*state.glob("lock.*"), state / "run.json", state / "metrics.jsonl"]
        age(locks.STALE + 30, *files)
        assert entries(index)["demo"].status == "stalled"
        age(locks.STALE + 20, *files)  # ten seconds later by that clock
        assert entries(index)["demo"].status == "training"


def test_a_failed_run_has_its_last_error(site, root):
    log_error(root / "results/demo", "train", "first", "no space left")
    entry = entries(Index(site))["demo"]
    assert (entry.status, entry.note) == ("failed", "no space left")


def test_a_run_without_its_evaluation(site, root):
    run = make_run(root, "demo")
    (run / "eval.json").unlink()
    log_error(run, "eval", "no memory")
    entry = entries(Index(site))["demo"]
    assert (entry.status, entry.note) == ("not evaluated", "no memory")


def test_a_damaged_run_names_the_file(site, root):
    run = make_run(root, "demo")
    (run / "eval.json").write_text("{")
    make_run(root, "other")
    found = entries(Index(site))
    assert found["demo"].status == "damaged"
    assert "eval.json" in found["demo"].note
    assert found["other"].status == "finished"


@pytest.mark.parametrize("value", [10**30, -(10**30), 2**63])
def test_a_number_that_is_too_large_damages_one_run(site, client_of, root, value):
    run = make_run(root, "demo")
    make_run(root, "other")
    change(run / "train.manifest.json", parameters={"train": {"max_iters": value}})
    client = client_of(site)
    for _ in range(2):
        found = {entry["name"]: entry for entry in client.get("/api/runs").json()["runs"]}
        assert found["demo"]["status"] == "damaged"
        assert f"{run}: damaged: `max_iters` should be " in found["demo"]["note"]
        assert found["other"]["status"] == "finished"
        assert client.get("/runs/demo").status_code == 200
    client.app.state.index.close()
    assert rows_in(site.project.run_index) == ["demo", "other"]


def test_a_directory_whose_name_is_not_text_can_be_shown(tmp_path, client_of):
    project = Project(tmp_path / os.fsdecode(b"\xff"))
    run = make_run(project.root, "demo")
    (run / "eval.json").unlink()
    (run / "eval.json").symlink_to(tmp_path)
    client = client_of(Site(project, project.results))
    assert "eval.json" in client.get("/api/runs").json()["runs"][0]["note"]
    assert "eval.json" in client.get("/runs/demo").text


def test_runs_that_a_running_snakemake_will_train_wait(site, root):
    log_error(root / "results/failed", "train", "an earlier error")
    age(100, root / "results/failed/train.log")
    make_run(root, "finished")
    names = ("new", "failed", "finished", "tried")
    lock_outputs(root, *(f"results/{name}/metrics.jsonl" for name in names), "results/x/eval.json")
    index = Index(site)
    assert "new" not in entries(index)  # a lock without an owner
    log_error(root / "results/tried", "train", "an error since")
    age(-100, root / "results/tried/train.log")
    with locks.hold(site.project.invocations / "here-1", "running the workflow"):
        found = entries(index)
    assert found["new"].status == found["failed"].status == "waiting"
    assert found["finished"].status == "finished"
    assert (found["tried"].status, found["tried"].note) == ("failed", "an error since")
    assert "x" not in found
    assert "new" not in entries(index)


def test_only_runs_are_listed(site, root):
    for name in ("datasets", "report", "gpt2", ".hidden", "empty", "-flag"):
        (root / "results" / name).mkdir()
        (root / "results" / name / "note.txt").touch()
    (root / "results/file").touch()
    assert entries(Index(site)) == {}


def test_other_results_have_no_unfinished_trainings(site, root, tmp_path):
    make_training(root, "demo")
    make_run(tmp_path / "other", "elsewhere")
    other = Site(site.project, tmp_path / "other/results")
    assert list(entries(Index(other))) == ["elsewhere"]
    assert not site.project.run_index.exists()


@pytest.mark.parametrize("link", ["demo", "demo/train.log", "demo/eval.json"])
def test_links_out_of_the_results_are_not_followed(site, root, tmp_path_factory, link):
    outside = make_run(tmp_path_factory.mktemp("outside"), "demo", val_loss=0.123)
    log_error(outside, "train", "a secret")
    if link != "demo":
        log_error(root / "results/demo", "train", "our own")
    target = root / "results" / link
    target.unlink(missing_ok=True)
    target.symlink_to(outside.parent / link)
    entry = entries(Index(site))["demo"]
    assert entry.status == "damaged"
    assert f"{target}: not followed" in entry.note
    assert entry.best_val_loss is None


def test_a_link_to_another_run_is_followed(site, root):
    make_run(root, "demo")
    (root / "results/copy").symlink_to("demo")
    assert entries(Index(site))["copy"].status == "finished"


@pytest.mark.parametrize("link", ["loop", "aaa", "aaa/eval.json", "aaa/sample.manifest.json"])
def test_a_loop_of_links_damages_one_run_at_most(site, root, link):
    make_run(root, "aaa")
    make_run(root, "demo")
    target = root / "results" / link
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    target.symlink_to(target.name)
    found = entries(Index(site))
    assert found["demo"].status == "finished"
    assert "loop" not in found
    assert "aaa" not in found or found["aaa"].status == ("damaged" if "/" in link else "finished")


def test_a_file_that_becomes_a_loop_of_links_is_noticed(site, root):
    make_run(root, "demo")
    path = root / "results/demo/eval.json"
    path.unlink()
    index = Index(site)
    assert entries(index)["demo"].status == "not evaluated"
    path.symlink_to(path.name)
    assert entries(index)["demo"].status == "damaged"


def test_results_that_become_a_file_have_no_runs(site, root):
    make_run(root, "demo")
    index = Index(site)
    assert list(entries(index)) == ["demo"]
    shutil.rmtree(site.results)
    site.results.write_text("no directory")
    assert entries(index) == {}


# --- Reading again ----------------------------------------------------------------------------


def test_only_changed_runs_are_read_again(site, root, reads):
    make_run(root, "a")
    run = make_run(root, "b")
    index = Index(site)
    assert entries(index)["b"].bits_per_byte == 0.88
    assert reads == ["a", "b"]
    assert entries(index).keys() == {"a", "b"}
    assert reads == ["a", "b"]
    change(run / "eval.json", dataset="other")
    assert entries(index)["b"].dataset == "other"
    assert reads == ["a", "b", "b"]


def test_an_unchanged_list_opens_no_file(site, root, monkeypatch):
    for name in ("a", "b"):
        make_run(root, name)
    index = Index(site)
    entries(index)
    opened = []

    def noting(own):
        return lambda path, *rest, **more: opened.append(path) or own(path, *rest, **more)

    for module in (builtins, io, os):
        monkeypatch.setattr(module, "open", noting(module.open))
    assert entries(index).keys() == {"a", "b"}
    assert opened == []
    (root / "results/b/eval.json").write_text("{")
    opened.clear()
    assert entries(index)["b"].status == "damaged"
    assert opened
    assert {Path(path).parent for path in opened} == {root / "results/b"}


def test_a_listing_since_a_revision_has_what_changed(site, root):
    run = make_run(root, "a")
    make_run(root, "b")
    index = Index(site)
    first = index.listing()
    assert index.listing(first.revision).entries == []
    change(run / "eval.json", dataset="other")
    second = index.listing(first.revision)
    assert [entry.name for entry in second.entries] == ["a"]
    assert second.n_runs == 2
    shutil.rmtree(run)
    third = index.listing(second.revision)
    assert (third.entries, third.n_runs) == ([], 1)
    assert third.revision > second.revision
    assert list(entries(index)) == ["b"]


def test_a_restart_reads_nothing_that_did_not_change(site, root, reads):
    make_run(root, "a")
    make_run(root, "b")
    first = Index(site)
    before = entries(first)
    first.close()
    reads.clear()
    shutil.rmtree(root / "results/b")
    second = Index(site)
    assert entries(second) == {"a": before["a"]}
    assert reads == []
    assert second.settings("a")["train.seed"] == 1337


def test_many_runs_are_read_in_parts(site, root, monkeypatch):
    for i in range(3):
        make_run(root, f"run-{i}")
    monkeypatch.setattr(index_module, "BUDGET", -1.0)
    index = Index(site)
    assert index.listing().n_unread == 3
    monkeypatch.setattr(index_module, "BUDGET", 60.0)
    listing = index.listing()
    assert (listing.n_unread, listing.n_runs) == (0, 3)


def test_a_growing_run_takes_a_small_share_of_the_time(site, root, reads, monkeypatch):
    state = make_training(root, "demo")
    index = Index(site)
    with locks.hold(state, "training demo"):
        entries(index)
        monkeypatch.setattr(index_module, "SHARE", 1e-9)
        with open(state / "metrics.jsonl", "a") as file:
            file.write('{"step": 250, "tokens": 250000}\n')
        assert entries(index)["demo"].step == 200
        monkeypatch.setattr(index_module, "SHARE", 1e9)
        assert entries(index)["demo"].step == 250
    assert reads == ["demo", "demo"]


def test_runs_come_in_natural_order(site, root):
    for name in ("run-10", "run-9", "a"):
        make_run(root, name)
    assert list(entries(Index(site))) == ["a", "run-9", "run-10"]


def test_a_list_does_not_wait_for_another_thread_that_looks(site, root, monkeypatch):
    make_run(root, "a")
    index = Index(site)
    assert list(entries(index)) == ["a"]
    make_run(root, "b")
    is_reading, may_go_on = threading.Event(), threading.Event()
    read = index_module.read_entry

    def slow(files):
        is_reading.set()
        assert may_go_on.wait(20)
        return read(files)

    monkeypatch.setattr(index_module, "read_entry", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(entries, index)
        try:
            assert is_reading.wait(20)
            assert list(pool.submit(entries, index).result(20)) == ["a"]
            assert index.names() == ["a"]
            assert index.settings("a")["train.seed"] == 1337
        finally:
            may_go_on.set()
        assert list(first.result(20)) == ["a", "b"]


# --- The file ---------------------------------------------------------------------------------


@pytest.fixture
def made(site: Site, root: Path) -> Path:
    """The file of an index of one run."""
    make_run(root, "demo")
    index = Index(site)
    assert list(entries(index)) == ["demo"]
    index.close()
    return site.project.run_index


def rows_in(path: Path) -> list[str]:
    with sqlite3.connect(path) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)
        return [name for (name,) in database.execute("select name from runs")]


def overwrite(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def change_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("pragma user_version = 99")


def change_table(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("drop table runs")
        database.execute("create table runs (name text)")


def break_row(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("update runs set status = 'no status', settings = '{'")


def break_text(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("update runs set dataset = cast(x'66ff' as text)")


@pytest.mark.parametrize(
    "damage", [overwrite, cut, scribble, change_version, change_table, break_row, break_text]
)
def test_a_damaged_file_is_made_again(site, made, damage):
    damage(made)
    index = Index(site)
    assert entries(index)["demo"].status == "finished"
    index.close()
    assert rows_in(made) == ["demo"]


def test_a_locked_file_is_not_waited_for(site, made, reads):
    database = sqlite3.connect(made, isolation_level=None)
    database.execute("begin exclusive")
    start = time.monotonic()
    assert entries(Index(site))["demo"].status == "finished"
    assert time.monotonic() - start < 5
    assert reads == ["demo"]
    database.close()
    assert rows_in(made) == ["demo"]


def test_without_a_place_for_the_file_the_index_is_in_memory(site, root):
    make_run(root, "demo")
    (root / ".nanogpt").write_text("in the way")
    index = Index(site)
    assert entries(index)["demo"].status == "finished"
    assert entries(index)["demo"].status == "finished"


def test_a_file_that_is_lost_while_it_is_used_is_not_fatal(site, root, made):
    index = Index(site)
    entries(index)
    scribble(made)
    make_run(root, "another")
    assert set(entries(index)) == {"demo", "another"}
    index.close()
    assert set(entries(Index(site))) == {"demo", "another"}
