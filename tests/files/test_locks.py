"""A lock lets one process in at a time, and keeps nobody out for one that died."""

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
from nanogpt.files import locks as lock

ROOT = Path(__file__).resolve().parents[2]
WORK = Path("work")
# Seconds. Another machine's lock is touched far more often than it goes stale, as the test's
# machine may be busy.
STALE = 0.5
HEARTBEAT = 0.03

HEADER = f"""
import logging, os, resource, signal, socket, sys, time
from pathlib import Path
from nanogpt.files import locks as lock
lock.STALE, lock.HEARTBEAT, lock.POLL = {STALE}, {HEARTBEAT}, 0.02
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
say = lambda text: print(text, flush=True)
"""
HOLD = """
with lock.hold(Path("work"), "which trains demo"):
    say("holds")
    sys.stdin.readline()
say("released")
"""
ELSEWHERE = 'socket.gethostname = lambda: "elsewhere"\n'

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes have no /proc")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty working directory; a lock is looked at often, as the tests are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "POLL", 0.02)
    return tmp_path


@pytest.fixture
def soon_stale(monkeypatch):
    monkeypatch.setattr(lock, "STALE", STALE)
    monkeypatch.setattr(lock, "HEARTBEAT", HEARTBEAT)


@pytest.fixture
def start():
    """A function that starts Python code with a lock at hand; all end with the test."""
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


def said(process):
    """The next line that a process says."""
    return process.stdout.readline().removesuffix("\n")


def let_go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def write_lock(number=1, **owner):
    """A lock as another process wrote it."""
    WORK.mkdir(exist_ok=True)
    path = WORK / f"lock.{number}"
    path.write_text(json.dumps(owner))
    return path


@contextlib.contextmanager
def touched(path):
    """Another machine that lives: it touches its lock until the block ends."""
    done = threading.Event()

    def touch():
        while not done.wait(HEARTBEAT) and path.exists():
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def waiter():
    """A thread that wants the lock; yields the event that it has it."""
    has_it, done = threading.Event(), threading.Event()

    def work():
        with lock.hold(WORK, "which waits"):
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


# --- One at a time --------------------------------------------------------------------------


def test_a_lock_is_held_inside_the_block_and_by_nobody_afterwards():
    assert lock.owner(WORK) is None
    with lock.hold(WORK, "which trains demo") as held:
        held.check()
        owner = lock.owner(WORK)
        assert (owner["pid"], owner["work"]) == (os.getpid(), "which trains demo")
    assert lock.owner(WORK) is None


def test_another_process_waits_until_the_lock_is_released(start, caplog):
    first = start(HOLD)
    assert said(first) == "holds"
    assert lock.owner(WORK)["pid"] == first.pid
    with caplog.at_level(logging.INFO, "nanogpt"), waiter() as has_it:
        assert not has_it.wait(0.3)
        let_go(first)
        assert has_it.wait(10)
        assert lock.owner(WORK)["pid"] == os.getpid()
    waits = f"work: waiting for process {first.pid} on {os.uname().nodename}, which trains demo"
    assert caplog.messages == [waits], "it is told once, and a release is no take-over"


def test_an_error_inside_the_block_releases_the_lock():
    with pytest.raises(KeyError), lock.hold(WORK, "which fails"):
        raise KeyError
    assert lock.owner(WORK) is None
    with lock.hold(WORK, "which goes on") as held:
        held.check()


def test_numbers_go_up_and_earlier_files_are_removed():
    for number in (1, 2, 3):
        with lock.hold(WORK, "again"):
            assert names() == [f"lock.{number}"]


def test_a_number_that_was_taken_and_left_meanwhile_cannot_be_taken_again():
    # A process that saw no lock, and slept while two others had it, one after the other.
    with lock.hold(WORK, "first"):
        pass
    with lock.hold(WORK, "second") as held, lock._opened(WORK) as opened:
        assert lock._create(WORK, opened, 1, "late") is None
        held.check()
        assert names() == ["lock.2"]


def test_a_number_of_a_directory_that_was_removed_meanwhile_cannot_be_taken():
    # A process that saw lock.1 released, and slept while the directory was made anew.
    with lock.hold(WORK, "first"):
        pass
    with lock._opened(WORK) as opened:
        shutil.rmtree(WORK)
        with lock.hold(WORK, "second") as held:
            assert lock._create(WORK, opened, 2, "late") is None
            held.check()
            assert names() == ["lock.1"]


RACE = """
for number in range(10):
    if os.fork() == 0:
        for _ in range(3):
            with lock.hold(Path("work"), "which races") as held:
                with open("order", "a") as file:
                    file.write(f"{os.getpid()} in\\n")
                    file.flush()
                    time.sleep(0.005)
                    file.write(f"{os.getpid()} out\\n")
                held.check()
        os._exit(0)
ended = [os.waitpid(-1, 0)[1] for number in range(10)]
say(ended)
"""


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_of_ten_processes_that_race_for_a_dead_ones_lock_one_at_a_time_has_it(start, machine):
    here = lock._machine() if machine == "here" else "elsewhere"
    write_lock(7, pid=2**22 + 1, started="1", machine=here)
    race = start(RACE.replace("say(ended)", "say(sum(ended))"))
    lines = race.communicate()[0].splitlines()
    assert lines[-1] == "0", "each ended well"
    order = Path("order").read_text().split("\n")[:-1]
    assert len(order) == 60
    for came, left in zip(order[::2], order[1::2], strict=True):
        assert came.removesuffix(" in") == left.removesuffix(" out")
    assert names() == ["lock.37"]


# --- Owners that died -----------------------------------------------------------------------


def test_a_killed_owner_is_taken_over_from_at_once(start, caplog):
    first = start(HOLD)
    assert said(first) == "holds"
    first.kill()
    first.wait()
    assert lock.owner(WORK) is None
    began = time.monotonic()
    with caplog.at_level(logging.INFO, "nanogpt"), lock.hold(WORK, "which goes on"):
        assert time.monotonic() - began < lock.STALE / 10
    assert caplog.messages == [
        f"work: taken over from process {first.pid} on {os.uname().nodename}, which trains demo"
    ]


@linux
def test_a_killed_owner_that_nobody_has_waited_for_is_taken_over_from(start):
    first = start(HOLD)
    assert said(first) == "holds"
    first.kill()
    stat = Path(f"/proc/{first.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert lock.owner(WORK) is None
    with lock.hold(WORK, "which goes on") as held:
        assert held.number == 2


@linux
def test_another_process_with_a_dead_owners_id_keeps_nobody_out():
    write_lock(pid=os.getpid(), started="1", machine=lock._machine())
    assert lock.owner(WORK) is None
    with lock.hold(WORK, "which goes on") as held:
        assert held.number == 2


@pytest.mark.usefixtures("soon_stale")
def test_an_owner_on_another_machine_is_waited_for_while_it_touches_its_lock():
    path = write_lock(pid=1, started="1", machine="elsewhere", host="far")
    with contextlib.ExitStack() as stack:
        with touched(path):
            has_it = stack.enter_context(waiter())
            assert not has_it.wait(3 * STALE)
            assert lock.owner(WORK)["host"] == "far"
        assert has_it.wait(10)
        assert names() == ["lock.2"]


def test_an_owner_on_another_machine_that_lets_go_is_not_waited_for():
    write_lock(released=True)
    with lock.hold(WORK, "which goes on") as held:
        assert held.number == 2


@pytest.mark.usefixtures("soon_stale")
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[1]", b'{"pid": "x"}', b"[" * 100_000],
    ids=["empty", "no text", "a list", "no process", "deep"],
)
def test_a_lock_that_says_nothing_of_use_keeps_others_out_until_it_is_stale(content):
    write_lock().write_bytes(content)
    began = time.monotonic()
    with lock.hold(WORK, "which goes on") as held:
        assert time.monotonic() - began > STALE
        assert held.number == 2


def test_files_that_are_no_locks_are_not_counted():
    WORK.mkdir()
    for name in ("lock.", "lock.x", "lock.1.bak", "lock.-3", "lock.007", "step-5.safetensors"):
        (WORK / name).touch()
    with lock.hold(WORK, "work") as held:
        assert held.number == 1


# --- Processes that slept -------------------------------------------------------------------


def test_an_owner_that_slept_learns_that_another_has_taken_over():
    with lock.hold(WORK, "which sleeps") as held:
        (WORK / "lock.2").touch()
        with pytest.raises(UserError, match="work: another process has taken over"):
            held.check()


def test_an_owner_whose_directory_was_made_anew_has_lost_it_and_leaves_the_new_lock_alone():
    with lock.hold(WORK, "which sleeps") as held:
        shutil.rmtree(WORK)
        with pytest.raises(UserError, match="taken over"):
            held.check()
        path = write_lock(pid=1, machine="elsewhere")
        with pytest.raises(UserError, match="taken over"):
            held.check()
    assert json.loads(path.read_text()) == {"pid": 1, "machine": "elsewhere"}


@pytest.mark.usefixtures("soon_stale")
def test_an_owner_on_another_machine_that_sleeps_is_taken_over_from_and_stops(start):
    check = """
with lock.hold(Path("work"), "which sleeps") as held:
    say("holds")
    sys.stdin.readline()
    held.check()
"""
    first = start(ELSEWHERE + "sys.tracebacklimit = 0\nsys.stderr = sys.stdout\n" + check)
    assert said(first) == "holds"
    first.send_signal(signal.SIGSTOP)
    with lock.hold(WORK, "which goes on") as held:
        first.send_signal(signal.SIGCONT)
        let_go(first)
        assert "another process has taken over" in first.communicate()[0]
        assert first.returncode == 1
        held.check()
        assert lock.owner(WORK)["pid"] == os.getpid()


def test_a_process_that_slept_while_it_waited_does_not_take_over_from_one_that_lives(start):
    path = write_lock(pid=1, started="1", machine="elsewhere")
    with touched(path):
        second = start(HOLD)
        assert said(second).startswith("work: waiting for")
        second.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * STALE)
        second.send_signal(signal.SIGCONT)
        time.sleep(STALE / 2)
        assert names() == ["lock.1"]
        second.kill()


@pytest.mark.usefixtures("soon_stale")
def test_a_directory_that_is_removed_while_another_waits_is_made_anew():
    path = write_lock(pid=1, started="1", machine="elsewhere")
    with contextlib.ExitStack() as stack:
        with touched(path):
            has_it = stack.enter_context(waiter())
            assert not has_it.wait(0.1)
        WORK.rename("gone")
        assert has_it.wait(10)
        assert names() == ["lock.1"]
        assert lock.owner(WORK)["work"] == "which waits"


# --- Full disks -----------------------------------------------------------------------------

FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))"


def test_a_lock_that_cannot_be_written_is_an_error_and_leaves_no_file(start):
    code = FULL + "\ntry:" + HOLD.replace("\n", "\n    ") + "\nexcept OSError: say('full')"
    assert start(code).communicate()[0] == "full\n"
    assert names() == []


def test_on_a_full_disk_the_block_ends_well_and_the_next_one_takes_over(start):
    code = HOLD.replace("sys.stdin.readline()", FULL)
    process = start(code)
    assert process.communicate()[0] == "holds\nreleased\n"
    with lock.hold(WORK, "which goes on") as held:
        held.check()


@pytest.mark.parametrize("what", ["a link that leads nowhere", "a file"])
def test_what_stands_in_the_place_of_a_directory_is_told_and_not_waited_for(what):
    if what == "a file":
        Path("shelf").write_text("a file")
    else:
        Path("shelf").symlink_to("nowhere")
    with pytest.raises(OSError, match="shelf"), lock.hold(Path("shelf/state"), "work"):
        pass
