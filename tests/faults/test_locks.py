"""Only one process trains. Others wait, or take over when it's dead or asleep."""

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.errors import UserError
from nanogpt.files import locks
from nanogpt.files.atomic import read_json
from tests.checkouts import PROJECT
from tests.faults.attacks import (
    FULL,
    PATIENCE,
    SEED,
    TRAINED,
    Call,
    assert_is_whole,
    environment,
    error_line,
    jobs,
    log_of,
    only_in_full,
    processes,
    run_trainer,
    send,
    start_trainer,
    start_workflow,
    states,
    unlock,
    wait_for_steps,
    wait_until,
    write_config,
)


def lock_file(project: Path) -> Path:
    (found,) = project.glob(".nanogpt/state/[!.]*/lock.*")
    return found


def kill_a_trainer(project: Path, count: Callable[[str], None]) -> None:
    """Train some steps, then die."""
    call = start_trainer(project)
    wait_for_steps(project, call)
    assert send(call.process.pid, signal.SIGKILL)
    count("kill")
    call.end()


@only_in_full
def test_a_dead_trainers_lock_blocks_nobody(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    kill_a_trainer(project, count)
    dead = read_json(lock_file(project))["pid"]
    run_trainer(project)
    assert f"took over from process {dead}" in log_of(project)
    assert "waiting" not in log_of(project)
    assert "resuming from step" in log_of(project)
    assert_is_whole(project, untouched, later=())


@only_in_full
@pytest.mark.parametrize(
    "changes",
    [
        # A process that's alive, but not the one that wrote the lock.
        {"pid": 1, "started": "another time"},
        {"pid": 2**22 + 1},
        {"pid": -1},
        {"pid": "none"},
        {"pid": None},
    ],
    ids=str,
)
def test_a_lock_with_a_reused_process_id_blocks_nobody(
    project: Path, untouched: dict[str, object], count: Callable[[str], None], changes: dict
) -> None:
    kill_a_trainer(project, count)
    path = lock_file(project)
    path.write_text(json.dumps({**read_json(path), **changes}))
    count("fault")
    run_trainer(project)
    assert "waiting" not in log_of(project)
    assert_is_whole(project, untouched, later=())


@only_in_full
@pytest.mark.parametrize("cache", ["off", ".nanogpt/cache"])
def test_of_two_trainers_one_trains_and_the_other_reuses_its_result(
    project: Path, untouched: dict[str, object], count: Callable[[str], None], cache: str
) -> None:
    calls = [start_trainer(project, NANOGPT_CACHE=cache) for _ in range(2)]
    count("fault")
    for call in calls:
        assert call.end() == 0, call.printed()
    log = log_of(project)
    assert log.count("waiting for process") == 1
    assert log.count("another process has made the outputs meanwhile") == 1
    assert log.count("resuming from step") == 0
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_a_waiting_trainer_takes_over_when_the_owner_is_killed(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    first = start_trainer(project)
    wait_for_steps(project, first)
    send(first.process.pid, signal.SIGSTOP)  # so that it isn't finished before the next one checks
    second = start_trainer(project)
    wait_until(lambda: "waiting for process" in log_of(project), "waiting")
    assert send(first.process.pid, signal.SIGKILL)
    count("kill")
    assert second.end() == 0
    assert f"took over from process {first.process.pid}" in log_of(project)
    assert_is_whole(project, untouched, later=())


@only_in_full
@pytest.mark.parametrize("cache", ["off", ".nanogpt/cache"])
def test_two_snakemakes_with_nolock_train_only_once(
    project: Path, untouched: dict[str, object], count: Callable[[str], None], cache: str
) -> None:
    calls = [start_workflow(project, "--nolock", *TRAINED, NANOGPT_CACHE=cache) for _ in range(2)]
    count("fault")
    for call in calls:
        assert call.end() == 0, call.printed()
    assert "another process has made the outputs meanwhile" in log_of(project)
    assert_is_whole(project, untouched, later=())


def orphan_of(project: Path, call: Call, count: Callable[[str], None]) -> int:
    """Kill Snakemake during a training; return the process id of its suspended trainer."""
    (orphan,) = jobs(project, "train")
    assert send(orphan, signal.SIGSTOP)
    assert send(call.process.pid, signal.SIGKILL)
    count("kill")
    call.end()
    unlock(project)
    return orphan


@only_in_full
def test_an_orphan_is_waited_for_and_its_result_is_used(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    first = start_workflow(project, *TRAINED)
    wait_for_steps(project, first)
    orphan = orphan_of(project, first, count)
    call = start_workflow(project, *TRAINED)
    wait_until(lambda: f"waiting for process {orphan} " in log_of(project), "waiting")
    send(orphan, signal.SIGCONT)
    assert call.end() == 0, call.printed()
    assert "another process has made the outputs meanwhile" in log_of(project)
    assert_is_whole(project, untouched, later=())


@only_in_full
@pytest.mark.parametrize("interval", ["0.2", "1000"])
def test_an_orphan_with_old_settings_stops_and_overwrites_nothing(
    project: Path, untouched: dict[str, object], count: Callable[[str], None], interval: str
) -> None:
    """It must check the ownership when it saves, and also if it doesn't save for long."""
    write_config(project, max_iters=1_000_000)
    first = start_workflow(project, *TRAINED, NANOGPT_SAVE_INTERVAL=interval)
    wait_until(lambda: "step 10:" in log_of(project), "training")
    orphan = orphan_of(project, first, count)
    send(orphan, signal.SIGCONT)
    write_config(project)
    second = start_workflow(project, *TRAINED)
    claim = project / ".nanogpt/runs/one"
    version = read_record(project / "untouched.manifest.json", Manifest).version
    wait_until(lambda: claim.read_text() == version, "claimed")
    wait_until(lambda: orphan not in processes(project), "the orphan at its end", timeout=10)
    assert second.end() == 0, second.printed()
    stopped = error_line(first.printed())
    assert "one: another process has started to train this run with different settings" in stopped
    assert states(project), "it was saved, for a return to its settings"
    shutil.rmtree(project / ".nanogpt/state")
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_an_orphan_that_samples_with_old_settings_overwrites_nothing(
    done_copy: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    config = done_copy / "config.yaml"
    now = config.read_text()
    config.write_text(now.replace("max_new_tokens: 200", "max_new_tokens: 6000"))
    call = start_workflow(done_copy)
    wait_until(lambda: jobs(done_copy, "sample"), "sampling")
    wait_until(lambda: "stage sample" in log_of(done_copy, "sample"), "sampling")
    assert send(call.process.pid, signal.SIGKILL)
    count("kill")
    call.end()
    unlock(done_copy)
    config.write_text(now)
    again = start_workflow(done_copy)
    assert again.end() == 0, again.printed()
    assert_is_whole(done_copy, untouched)


HOLDER = """
import sys, time
from pathlib import Path
from nanogpt.files import locks
locks.HEARTBEAT = float(sys.argv[2])
with locks.hold(Path(sys.argv[1]), "which sleeps") as lock:
    print("has it", flush=True)
    sys.stdin.readline()
    lock.check()
    print("checked", flush=True)
"""


def start_holder(directory: Path, heartbeat: float) -> subprocess.Popen:
    """Start a process that holds a lock until it reads a line."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), str(heartbeat)],
        env=environment(PYTHONPATH=str(PROJECT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "has it\n"
    return holder


def is_elsewhere(directory: Path) -> None:
    """Edit a lock so that its owner seems to be on another machine."""
    (path,) = directory.glob("lock.*")
    path.write_text(json.dumps({**read_json(path), "machine": "another"}))


@pytest.mark.parametrize("where", ["elsewhere", pytest.param("here", marks=only_in_full)])
def test_a_sleeping_owner_is_replaced_and_stops_when_it_wakes_up(
    tmp_path: Path, count: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(locks, "STALE", 1.5)
    monkeypatch.setattr(locks, "POLL", 0.05)
    holder = start_holder(tmp_path / "state", heartbeat=0.1)
    try:
        if where == "elsewhere":
            is_elsewhere(tmp_path / "state")
        send(holder.pid, signal.SIGSTOP)
        count("fault")
        began = time.monotonic()
        with locks.hold(tmp_path / "state", "which is awake") as lock:
            assert time.monotonic() - began > 1.5
            send(holder.pid, signal.SIGCONT)
            printed, error = holder.communicate("check\n", timeout=PATIENCE)
            assert "checked" not in printed
            assert "UserError" in error
            assert "another process took over this work while this one was suspended" in error
            lock.check()
    finally:
        holder.kill()
        holder.wait(PATIENCE)


@pytest.mark.parametrize("where", ["elsewhere", pytest.param("here", marks=only_in_full)])
def test_an_owner_with_a_heartbeat_is_waited_for(
    tmp_path: Path, count: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(locks, "STALE", 1.0)
    monkeypatch.setattr(locks, "POLL", 0.05)
    holder = start_holder(tmp_path / "state", heartbeat=0.1)
    try:
        if where == "elsewhere":
            is_elsewhere(tmp_path / "state")
        count("fault")
        released = []

        def let_go() -> None:
            released.append(time.monotonic())
            holder.communicate("check\n", timeout=PATIENCE)

        timer = threading.Timer(3.0, let_go)
        timer.start()
        with locks.hold(tmp_path / "state", "which is patient"):
            assert released
        timer.join()
        assert holder.returncode == 0
    finally:
        holder.kill()
        holder.wait(PATIENCE)


def test_a_lock_without_an_owner_blocks_only_until_it_is_stale(
    tmp_path: Path, count: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STALE", 0.5)
    monkeypatch.setattr(locks, "POLL", 0.05)
    for content in ("", "{", "[1]", '"text"', "{}", "\0" * 200):
        (tmp_path / "lock.7").write_text(content)
        count("fault")
        began = time.monotonic()
        with locks.hold(tmp_path, "which comes next") as lock:
            lock.check()
            assert time.monotonic() - began > 0.5
        (tmp_path / "lock.8").unlink()


# Takes the lock repeatedly. A second lock, which the system releases with its owner, is a witness.
RACER = """
import fcntl, os, random, shutil, sys, time
from pathlib import Path
from nanogpt.files import locks
from nanogpt.errors import UserError
locks.POLL = 0.002
# A lock that was just being written when its owner was killed is waited for.
locks.HEARTBEAT, locks.STALE = 0.5, 15
root, seed = Path(sys.argv[1]), int(sys.argv[2])

def is_dead(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True

chance = random.Random(seed)
for number in range(int(sys.argv[3])):
    directory = root / "state"
    with locks.hold(directory, "which races") as lock:
        with open(root / "witness", "a+") as witness:
            try:
                fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                witness.seek(0)
                pid = int(witness.read().split()[-1])
                if not is_dead(pid):
                    sys.exit("two at once")
                # The thread of its heartbeat, which ends a moment later, still holds its files.
                fcntl.flock(witness, fcntl.LOCK_EX)
            witness.write(f" {os.getpid()}")
            witness.flush()
            time.sleep(chance.uniform(0, 0.004))
            lock.check()
        with open(root / "turns", "a") as turns:
            turns.write(f"{os.getpid()}\\n")
        if chance.random() < 0.5:  # as a finished training does
            gone = directory.with_name(f".state.{os.getpid()}.{number}")
            directory.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
"""


# As NFS shows a directory: as it was a while ago, unless this process has changed it since.
LATE_VIEW = """
import os, time
LATE = 0.3
views, real_listdir, real_open, real_stat = {}, os.listdir, os.open, os.stat

def late(key, look):
    if key not in views or time.monotonic() - views[key][0] > LATE:
        views[key] = time.monotonic(), look()
    return views[key][1]

def listdir(where):
    if not isinstance(where, int):
        return real_listdir(where)
    return list(late(real_stat(where).st_ino, lambda: real_listdir(where)))

def open_(path, flags, mode=0o777, *, dir_fd=None):
    if flags & os.O_CREAT:
        views.clear()
    return real_open(path, flags, mode, dir_fd=dir_fd)

def stat(path, **more):
    if isinstance(path, int) or more.get("dir_fd") is not None:
        return real_stat(path, **more)
    # What isn't there is remembered, too.
    if not late(str(path), lambda: os.path.lexists(path)):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return real_stat(path, **more)

os.listdir, os.open, os.stat = listdir, open_, stat
"""


@pytest.mark.parametrize("view", ["", pytest.param(LATE_VIEW, id="late")])
def test_two_processes_never_hold_a_lock_even_if_some_are_killed(
    tmp_path: Path, count: Callable[[str], None], view: str
) -> None:
    turns, n_processes = (200, 6) if FULL else (60, 4)
    chance = random.Random(SEED)

    def begin(seed: int) -> subprocess.Popen:
        command = [sys.executable, "-c", view + RACER, str(tmp_path), str(seed), str(turns)]
        return subprocess.Popen(
            command, env=environment(PYTHONPATH=str(PROJECT)), stderr=subprocess.PIPE, text=True
        )

    racers = [begin(seed) for seed in range(n_processes)]
    try:
        wait_until((tmp_path / "turns").exists, "racing")
        for _ in range(n_processes // 2):
            time.sleep(chance.uniform(0.05, 0.2))
            victim = racers.pop(0)
            if victim.poll() is None:
                send(victim.pid, signal.SIGKILL)
                count("kill")
            victim.communicate(timeout=PATIENCE)
            racers.append(begin(chance.randrange(10**6)))
        for racer in racers:
            _, error = racer.communicate(timeout=PATIENCE)
            assert racer.returncode == 0, error
    finally:
        for racer in racers:
            racer.kill()
            racer.wait(PATIENCE)


def test_removing_a_locks_directory_loses_the_lock(tmp_path: Path) -> None:
    with locks.hold(tmp_path / "state", "which loses") as lock:
        lock.check()
        shutil.rmtree(tmp_path / "state")
        with pytest.raises(UserError, match="another process took over"):
            lock.check()
        with locks.hold(tmp_path / "state", "which gains") as successor:
            successor.check()
            with pytest.raises(UserError, match="another process took over"):
                lock.check()


@only_in_full
def test_of_trainers_killed_in_any_order_one_finishes(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    """Three run together; whichever is killed, another one continues."""
    chance = random.Random(SEED)
    calls = [start_trainer(project) for _ in range(3)]
    while len(calls) > 1:
        time.sleep(chance.uniform(2, 4))
        victim = calls.pop(chance.randrange(len(calls)))
        if victim.process.poll() is None and send(victim.process.pid, signal.SIGKILL):
            count("kill")
        victim.end()
    assert calls[0].end() == 0, calls[0].printed()
    assert_is_whole(project, untouched, later=())
