"""A run that's killed at any moment and started again ends with the same bytes."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt.artifacts.manifests import verify
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.project import Project
from tests.faults.attacks import (
    FULL,
    MANY_ITERS,
    MAX_ITERS,
    SEED,
    TRAINED,
    Call,
    assert_is_whole,
    forget,
    jobs,
    log_of,
    made,
    metrics_of,
    only_in_full,
    processes,
    run_trainer,
    run_workflow,
    send,
    start_trainer,
    start_workflow,
    states,
    unlock,
    wait_for_steps,
    wait_until,
    write_config,
)

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
Kill = tuple[str, str, signal.Signals]  # when, which process, which signal

# One kill each, or a series of kills until the run is finished. Processes and signals are chosen at
# random.
ROUND = ("starting", "stepping", "saving", "stepping", "stepping", "finishing", "eval", "sample")
WAYS = (("job", KILL), ("snakemake", KILL), ("all", KILL), ("all", TERM), ("all", INT))
KILLS_IN_FULL = 16
SHORT: list[Kill] = [("saving", "job", KILL), ("stepping", "all", KILL)]


def planned_kills(chance: random.Random) -> list[Kill]:
    if not FULL:
        return SHORT
    moments = [ROUND[number % len(ROUND)] for number in range(KILLS_IN_FULL)]
    # No job exists yet when Snakemake starts.
    return [(m, *chance.choice(WAYS[1:] if m == "starting" else WAYS)) for m in moments]


def has_come(project: Path, moment: str, began: int, litter: set[Path]) -> bool:
    """Whether a call that started at `began` (ns) has reached a moment."""
    if moment == "stepping":
        metrics = metrics_of(project)
        return metrics is not None and metrics.stat().st_mtime_ns > began
    if moment == "saving":
        return bool(set(project.glob(".nanogpt/state/[!.]*/.state.*.tmp")) - litter)
    if moment == "finishing":
        return any(project.glob("results/one/model/*")) or any(
            project.glob("results/one/model/.*.tmp")
        )
    if moment == "starting":
        return True
    return bool(jobs(project, moment))


def wait_for_moment(project: Path, call: Call, moment: str, chance: random.Random) -> bool:
    """Wait for a moment plus a random time; False if the call ended before."""
    began, litter = time.time_ns(), set(project.glob(".nanogpt/state/*/.state.*.tmp"))

    def come_or_over() -> bool:
        try:
            return has_come(project, moment, began, litter) or call.process.poll() is not None
        except FileNotFoundError:  # the state is being removed right now
            return False

    wait_until(come_or_over, moment)
    longest = {"starting": 3.0, "stepping": 1.5, "saving": 0.02, "finishing": 0.1}.get(moment, 2.5)
    time.sleep(chance.uniform(0, longest))
    return call.process.poll() is None


def kill(project: Path, call: Call, whom: str, number: signal.Signals) -> bool:
    """Kill processes and wait for their end; False if there were none."""
    pid = call.process.pid
    if whom == "job":
        struck = [send(job, number) for job in jobs(project)]
        call.end()
        return any(struck)
    struck = send(pid, number, to_group=whom == "all")
    call.end()
    if whom == "all":
        wait_until(lambda: not processes_of(project, pid), "the process group at its end")
    return struck


def processes_of(project: Path, group: int) -> list[int]:
    """Return the processes of a process group that work in a project."""
    found = []
    for pid in processes(project):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            found.append(pid)
    return found


def test_a_run_killed_many_times_ends_in_the_same_bytes(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    if FULL:  # leaves time for more kills
        write_config(project, max_iters=MANY_ITERS)
        run_workflow(project, NANOGPT_SAVE_INTERVAL="1000")
        untouched = made(project)
    chance = random.Random(SEED)
    kills = planned_kills(chance)
    while kills:
        forget(project)
        while kills:
            moment, whom, number = kills[0]
            call = start_workflow(project)
            if not wait_for_moment(project, call, moment, chance):
                break  # the run is over, but the next one has this moment too
            if kill(project, call, whom, number):
                kills.pop(0)
                count("kill")
                print(f"{moment}: {whom} {number.name}", states(project)[-1:])
            elif call.process.returncode == 0:
                break  # all processes had ended already
            unlock(project)
        else:
            call = start_workflow(project)
        # If a job was killed at the last moment, the call fails; run the command again.
        assert call.end() == 0, call.printed()
        assert_is_whole(project, untouched)
        for path in (project / "results").rglob("*.manifest.json"):
            assert verify(Project(project), path) == []


@pytest.mark.parametrize("number", [TERM, pytest.param(INT, marks=only_in_full)])
def test_a_stop_signal_saves_and_exits_with_128_plus_the_signal(
    project: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    number: signal.Signals,
) -> None:
    rare = {"NANOGPT_SAVE_INTERVAL": "1000"}
    call = start_trainer(project, **rare)
    wait_until(lambda: metrics_of(project), "training")
    time.sleep(0.5)
    assert send(call.process.pid, number)
    count("kill")
    assert call.end(timeout=10) == 128 + number
    assert "Traceback" not in call.printed() + log_of(project)
    (state,) = states(project)
    step = state.name.split(".")[0].removeprefix("step-")
    assert f"saved the state at step {step}\n" in log_of(project)
    assert f"stopped by {number.name} at step {step}\n" in log_of(project)
    run_trainer(project, **rare)
    assert f"resuming from step {step}\n" in log_of(project)
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_a_save_signal_saves_and_continues(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    call = start_trainer(project, NANOGPT_SAVE_INTERVAL="1000")
    wait_until(lambda: metrics_of(project), "training")
    assert send(call.process.pid, signal.SIGUSR1)
    count("fault")
    wait_until(lambda: states(project), "saved")
    assert call.end() == 0, call.printed()
    assert log_of(project).count("saved the state at step") == 1
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_half_written_states_of_a_killed_trainer_are_removed(
    project: Path, count: Callable[[str], None]
) -> None:
    """States can be large, and a training can be killed many times."""
    call = start_trainer(project)
    wait_for_steps(project, call)
    assert send(call.process.pid, KILL)
    count("kill")
    call.end()
    left = states(project)[0].parent / f".state.{call.process.pid}.tmp"
    left.write_bytes(b"the beginning of a state")
    again = start_trainer(project)
    wait_for_steps(project, again)
    assert not left.exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip_a_bit(path: Path) -> None:
    written = bytearray(path.read_bytes())
    written[random.Random(SEED).randrange(len(written))] ^= 4
    path.write_bytes(written)


def stop_in_the_middle(project: Path, count: Callable[[str], None], n_lines: int = 6) -> list[Path]:
    """Stop a training with SIGTERM to the whole workflow; return the states that it leaves."""
    call = start_workflow(project, *TRAINED)
    wait_for_steps(project, call, n_lines)
    assert kill(project, call, "all", TERM)
    count("kill")
    unlock(project)
    return states(project)


@only_in_full
@pytest.mark.parametrize("of", ["newest", "all"])
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, zero])
def test_a_damaged_state_is_logged_and_costs_only_steps(
    project: Path,
    untouched: dict[str, object],
    count: Callable[[str], None],
    damage: Callable[[Path], None],
    of: str,
) -> None:
    found = stop_in_the_middle(project, count, n_lines=10)
    assert len(found) == 2
    damaged = found if of == "all" else found[-1:]
    for path in damaged:
        damage(path)
        count("fault")
    printed = run_workflow(project, *TRAINED)
    assert printed.count("damaged; using the state before it") == len(damaged)
    step = found[0].name.split(".")[0].removeprefix("step-")
    assert (f"resuming from step {step}\n" in log_of(project)) == (of == "newest")
    assert_is_whole(project, untouched, later=())


@only_in_full
@pytest.mark.parametrize("left", ["nothing", "the older one", "no progress of metrics"])
def test_a_state_with_missing_files_costs_only_steps(
    project: Path, untouched: dict[str, object], count: Callable[[str], None], left: str
) -> None:
    found = stop_in_the_middle(project, count)
    if left == "nothing":
        shutil.rmtree(found[0].parent)
    elif left == "the older one":
        found[-1].unlink()
    else:
        (found[0].parent / "metrics.jsonl").unlink()
    count("fault")
    run_workflow(project, *TRAINED)
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_removing_a_trainers_state_stops_it_and_changes_no_bit(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    call = start_trainer(project)
    wait_for_steps(project, call)
    shutil.rmtree(project / ".nanogpt/state", ignore_errors=True)
    shutil.rmtree(project / ".nanogpt/state", ignore_errors=True)
    count("fault")
    assert call.end() == 1
    assert "Traceback" not in call.printed()
    run_trainer(project)
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_a_state_of_another_version_is_not_resumed(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    write_config(project, learning_rate=3e-4, min_lr=1e-5)
    (*_, other) = stop_in_the_middle(project, count)
    version = read_record(project / "untouched.manifest.json", Manifest).version
    assert other.parent.name != version
    other.parent.rename(other.parent.with_name(version))
    count("fault")
    write_config(project)
    run_workflow(project, *TRAINED)
    assert_is_whole(project, untouched, later=())


@only_in_full
def test_resuming_with_other_threads_is_logged(project: Path, count: Callable[[str], None]) -> None:
    # Late, because two threads on busy cores mostly wait for each other.
    stop_in_the_middle(project, count, n_lines=MAX_ITERS // 5 - 4)
    printed = run_workflow(project, "--cores", "2", *TRAINED)
    count("fault")
    for text in (printed, log_of(project)):
        assert "threads: 1 before, 2 now" in text
    manifest = read_record(project / "results/one/train.manifest.json", Manifest)
    layouts = manifest.environment.layouts
    assert [layout.threads for layout in layouts] == [1, 2]
    assert layouts[1].first_step > layouts[0].first_step == 0
