"""One process at a time holds a lock, and a dead process blocks nobody."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nanogpt.errors import UserError
from nanogpt.files import locks

ROOT = Path(__file__).resolve().parents[2]
WORK = Path("work")
# Seconds. Another machine's lock is touched far more often than it goes stale, because the test's
# machine may be busy.
STALE = 0.5
HEARTBEAT = 0.03

HEADER = f"""
import logging, os, resource, signal, socket, sys, time
from pathlib import Path
from nanogpt.files import locks
locks.STALE, locks.HEARTBEAT, locks.POLL = {STALE}, {HEARTBEAT}, 0.02
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
say = lambda text: print(text, flush=True)
"""
HOLD = """
with locks.hold(Path("work"), "training demo"):
    say("holds")
    sys.stdin.readline()
say("released")
"""
ELSEWHERE = 'socket.gethostname = lambda: "elsewhere"\n'

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes have no /proc")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty working directory, with locks polled often to keep the tests short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "POLL", 0.02)
    return tmp_path


@pytest.fixture
def soon_stale(monkeypatch):
    monkeypatch.setattr(locks, "STALE", STALE)
    monkeypatch.setattr(locks, "HEARTBEAT", HEARTBEAT)


@pytest.fixture
def start():
    """A function that starts Python code that uses locks; the processes end with the test."""
    with contextlib.ExitStack() as stack:

        def run(code):
            path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            process = subprocess.Popen(
                [sys.executable, "-c", HEADER + code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run


def read_line(process):
    """The next line that a process prints."""
    return process.stdout.readline().removesuffix("\n")


def let_go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def write_lock(number=1, **owner):
    """A lock written by another process."""
    WORK.mkdir(exist_ok=True)
    path = WORK / f"lock.{number}"
    path.write_text(json.dumps(owner))
    return path


@contextlib.contextmanager
def touched(path, ahead=0):
    """A live owner on another machine, which touches its lock until the block ends.

    ahead: seconds by which that machine's clock is ahead.
    """
    done = threading.Event()

    def touch():
        while not done.wait(HEARTBEAT) and path.exists():
            os.utime(path, (time.time() + ahead,) * 2)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def waiter():
    """A thread that acquires the lock; yields an event that's set when it has it."""
    has_it, done = threading.Event(), threading.Event()

    def work():
        with locks.hold(WORK, "waiting"):
            has_it.set()
            done.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield has_it
    finally:
        done.set()
        thread.join()


def names():
    return sorted(path.name for path in WORK.iterdir())


# --- Mutual exclusion -----------------------------------------------------------------------


def test_a_lock_has_an_owner_inside_the_block_and_none_afterwards():
    assert locks.owner(WORK) is None
    with locks.hold(WORK, "training demo") as lock:
        lock.check()
        owner = locks.owner(WORK)
        assert (owner.pid, owner.work) == (os.getpid(), "training demo")
    assert locks.owner(WORK) is None


def test_another_process_waits_until_the_lock_is_released(start, caplog):
    first = start(HOLD)
    assert read_line(first) == "holds"
    assert locks.owner(WORK).pid == first.pid
    with caplog.at_level(logging.INFO, "nanogpt"), waiter() as has_it:
        assert not has_it.wait(0.3)
        let_go(first)
        assert has_it.wait(10)
        assert locks.owner(WORK).pid == os.getpid()
    waits = f"work: waiting for process {first.pid} on {os.uname().nodename} (training demo)"
    assert caplog.messages == [waits], "logged once, and a release isn't a take-over"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (
            {"pid": 7, "host": "far", "work": "training demo"},
            "process 7 on far (training demo)",
        ),
        ({"pid": 7, "host": "far"}, "process 7 on far"),
        ({"pid": "x", "host": 5, "work": None, "machine": "y"}, "process ? on an unknown host"),
    ],
    ids=["whole", "without work", "fields of other types"],
)
def test_an_owner_is_named_by_its_process_host_and_work(content, name):
    write_lock(**{"machine": "elsewhere", **content})
    assert str(locks.owner(WORK)) == name


def test_an_error_inside_the_block_releases_the_lock():
    with pytest.raises(KeyError), locks.hold(WORK, "failing"):
        raise KeyError
    assert locks.owner(WORK) is None
    with locks.hold(WORK, "continuing") as lock:
        lock.check()


def test_numbers_go_up_and_earlier_files_are_removed():
    for number in (1, 2, 3):
        with locks.hold(WORK, "again"):
            assert names() == [f"lock.{number}"]


def test_a_number_used_and_released_meanwhile_cannot_be_reused():
    # A process that saw no lock, and was suspended while two others had it in turn.
    with locks.hold(WORK, "first"):
        pass
    with locks.hold(WORK, "second") as lock, locks._opened(WORK) as opened:
        assert locks._create(WORK, opened, 1, "late") is None
        lock.check()
        assert names() == ["lock.2"]


def test_a_number_in_a_removed_directory_cannot_be_used():
    # A process that saw lock.1 released, and was suspended while the directory was recreated.
    with locks.hold(WORK, "first"):
        pass
    with locks._opened(WORK) as opened:
        shutil.rmtree(WORK)
        with locks.hold(WORK, "second") as lock:
            assert locks._create(WORK, opened, 2, "late") is None
            lock.check()
            assert names() == ["lock.1"]


RACE = """
for number in range(10):
    if os.fork() == 0:
        for _ in range(3):
            with locks.hold(Path("work"), "racing") as lock:
                with open("order", "a") as file:
                    file.write(f"{os.getpid()} in\\n")
                    file.flush()
                    time.sleep(0.005)
                    file.write(f"{os.getpid()} out\\n")
                lock.check()
        os._exit(0)
ended = [os.waitpid(-1, 0)[1] for number in range(10)]
say(ended)
"""


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_ten_processes_racing_for_a_dead_ones_lock_get_it_one_at_a_time(start, machine):
    here = locks._machine() if machine == "here" else "elsewhere"
    write_lock(7, pid=2**22 + 1, started="1", machine=here)
    race = start(RACE.replace("say(ended)", "say(sum(ended))"))
    lines = race.communicate()[0].splitlines()
    assert lines[-1] == "0", "each ended well"
    order = Path("order").read_text().split("\n")[:-1]
    assert len(order) == 60
    for came, left in zip(order[::2], order[1::2], strict=True):
        assert came.removesuffix(" in") == left.removesuffix(" out")
    assert names() == ["lock.37"]


# --- Dead owners ----------------------------------------------------------------------------


def test_a_killed_owners_lock_is_taken_over_immediately(start, caplog):
    first = start(HOLD)
    assert read_line(first) == "holds"
    first.kill()
    first.wait()
    assert locks.owner(WORK) is None
    began = time.monotonic()
    with caplog.at_level(logging.INFO, "nanogpt"), locks.hold(WORK, "continuing"):
        assert time.monotonic() - began < locks.STALE / 10
    assert caplog.messages == [
        f"work: took over from process {first.pid} on {os.uname().nodename} (training demo)"
    ]


@linux
def test_a_killed_owners_lock_is_taken_over_even_if_nobody_waited(start):
    first = start(HOLD)
    assert read_line(first) == "holds"
    first.kill()
    stat = Path(f"/proc/{first.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert locks.owner(WORK) is None
    with locks.hold(WORK, "continuing") as lock:
        assert lock.number == 2


@linux
def test_another_process_with_a_dead_owners_id_blocks_nobody():
    write_lock(pid=os.getpid(), started="1", machine=locks._machine())
    assert locks.owner(WORK) is None
    with locks.hold(WORK, "continuing") as lock:
        assert lock.number == 2


@pytest.mark.usefixtures("soon_stale")
def test_an_owner_on_another_machine_is_waited_for_while_it_is_alive():
    path = write_lock(pid=1, started="1", machine="elsewhere", host="far")
    with contextlib.ExitStack() as stack:
        with touched(path):
            has_it = stack.enter_context(waiter())
            assert not has_it.wait(3 * STALE)
            assert locks.owner(WORK).host == "far"
        assert has_it.wait(10)
        assert names() == ["lock.2"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_owner_whose_clock_differs_by_an_hour_counts_as_alive(hours):
    """For whoever doesn't wait, such as a call that looks whether another one has left a lock."""
    path = write_lock(pid=1, started="1", machine="elsewhere", host="far")
    date = time.time() + hours * 3600 - 2 * locks.HEARTBEAT
    os.utime(path, (date, date))
    assert locks.owner(WORK).host == "far"


@pytest.mark.usefixtures("soon_stale")
@pytest.mark.parametrize("hours", [-1, 1])
def test_an_owner_whose_clock_differs_by_an_hour_is_waited_for_while_it_touches_its_lock(hours):
    """Whose touches have the dates of its own clock."""
    path = write_lock(pid=1, started="1", machine="elsewhere", host="far")
    with contextlib.ExitStack() as stack:
        with touched(path, hours * 3600):
            has_it = stack.enter_context(waiter())
            assert not has_it.wait(3 * STALE)
        assert has_it.wait(10)


def test_a_lock_released_on_another_machine_is_not_waited_for():
    write_lock(released=True)
    with locks.hold(WORK, "continuing") as lock:
        assert lock.number == 2


@pytest.mark.usefixtures("soon_stale")
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[1]", b'{"pid": "x"}', b"[" * 100_000],
    ids=["empty", "not text", "a list", "no process", "deep"],
)
def test_a_lock_without_an_owner_blocks_others_until_it_is_stale(content):
    write_lock().write_bytes(content)
    began = time.monotonic()
    with locks.hold(WORK, "continuing") as lock:
        assert time.monotonic() - began > STALE
        assert lock.number == 2


def test_files_with_other_names_are_not_locks():
    WORK.mkdir()
    for name in ("lock.", "lock.x", "lock.1.bak", "lock.-3", "lock.007", "step-5.safetensors"):
        (WORK / name).touch()
    with locks.hold(WORK, "work") as lock:
        assert lock.number == 1


# --- Suspended processes --------------------------------------------------------------------


def test_a_suspended_owner_notices_that_another_took_over():
    with locks.hold(WORK, "sleeping") as lock:
        (WORK / "lock.2").touch()
        with pytest.raises(UserError, match="work: another process took over"):
            lock.check()


def test_an_owner_whose_directory_was_replaced_leaves_the_new_lock_alone():
    with locks.hold(WORK, "sleeping") as lock:
        shutil.rmtree(WORK)
        with pytest.raises(UserError, match="took over"):
            lock.check()
        path = write_lock(pid=1, machine="elsewhere")
        with pytest.raises(UserError, match="took over"):
            lock.check()
    assert json.loads(path.read_text()) == {"pid": 1, "machine": "elsewhere"}


@pytest.mark.usefixtures("soon_stale")
def test_a_suspended_owner_on_another_machine_loses_the_lock_and_stops(start):
    check = """
with locks.hold(Path("work"), "sleeping") as lock:
    say("holds")
    sys.stdin.readline()
    lock.check()
"""
    first = start(ELSEWHERE + "sys.tracebacklimit = 0\nsys.stderr = sys.stdout\n" + check)
    assert read_line(first) == "holds"
    first.send_signal(signal.SIGSTOP)
    with locks.hold(WORK, "continuing") as lock:
        first.send_signal(signal.SIGCONT)
        let_go(first)
        assert "another process took over" in first.communicate()[0]
        assert first.returncode == 1
        lock.check()
        assert locks.owner(WORK).pid == os.getpid()


def test_a_process_suspended_while_waiting_takes_no_lock_from_a_live_owner(start):
    path = write_lock(pid=1, started="1", machine="elsewhere")
    with touched(path):
        second = start(HOLD)
        assert read_line(second).startswith("work: waiting for")
        second.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * STALE)
        second.send_signal(signal.SIGCONT)
        time.sleep(STALE / 2)
        assert names() == ["lock.1"]
        second.kill()


@pytest.mark.usefixtures("soon_stale")
def test_a_directory_removed_while_another_waits_is_recreated():
    path = write_lock(pid=1, started="1", machine="elsewhere")
    with contextlib.ExitStack() as stack:
        with touched(path):
            has_it = stack.enter_context(waiter())
            assert not has_it.wait(0.1)
        WORK.rename("gone")
        assert has_it.wait(10)
        assert names() == ["lock.1"]
        assert locks.owner(WORK).work == "waiting"


# --- Full disks -----------------------------------------------------------------------------

FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))"


def test_a_lock_that_cannot_be_written_is_an_error_and_leaves_no_file(start):
    code = FULL + "\ntry:" + HOLD.replace("\n", "\n    ") + "\nexcept OSError: say('full')"
    assert start(code).communicate()[0] == "full\n"
    assert names() == []


def test_on_a_full_disk_the_block_succeeds_and_the_next_owner_takes_over(start):
    code = HOLD.replace("sys.stdin.readline()", FULL)
    process = start(code)
    assert process.communicate()[0] == "holds\nreleased\n"
    with locks.hold(WORK, "continuing") as lock:
        lock.check()


@pytest.mark.parametrize("what", ["a link that leads nowhere", "a file"])
def test_a_file_instead_of_a_directory_is_an_error_without_waiting(what):
    if what == "a file":
        Path("shelf").write_text("a file")
    else:
        Path("shelf").symlink_to("nowhere")
    with pytest.raises(OSError, match="shelf"), locks.hold(Path("shelf/state"), "work"):
        pass
