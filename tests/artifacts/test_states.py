"""A training's state has one owner, is kept when it stops, and is removed when it's done."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt.artifacts import states
from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.manifests import TrainingRequest
from nanogpt.errors import DivergedError, UserError
from nanogpt.files import locks
from nanogpt.files.atomic import read_json
from nanogpt.project import HERE, Project

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0123456789ab"
REQUEST = TrainingRequest(
    stage="train",
    version=VERSION,
    inputs={"results/datasets/play/train.bin": "a" * 64, "results/datasets/play/val.bin": "b" * 64},
    parameters={"train": {"seed": 1, "learning_rate": 0.1}},
    code="c" * 64,
    run="demo",
    settings={"train": {"seed": 1, "learning_rate": 0.1, "device": "auto"}},
)
OLDER = "ba9876543210"  # the version of an earlier training of the same run


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty working directory, with locks polled often to keep the tests short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "POLL", 0.02)
    return tmp_path


def request(**changes):
    return REQUEST.model_copy(update=changes)


def hold(**changes):
    return states.hold(HERE, request(**changes))


def save(training, step, content="weights"):
    (training.directory / f"step-{step}.0123456789abcdef.safetensors").write_text(content)


class StoppedError(Exception):
    """Represents anything that ends a training early."""


def leave(*steps, **changes):
    """The directory of a training that saves its state at these steps and then stops."""
    with contextlib.suppress(StoppedError), hold(**changes) as training:
        for step in steps:
            save(training, step)
        raise StoppedError
    return training.directory


def saved_steps(directory):
    """The steps at which the states in a directory were saved, in order."""
    names = [path.name for path in directory.glob("step-*.safetensors")]
    return sorted(int(name.removeprefix("step-").partition(".")[0]) for name in names)


def state_names():
    return sorted(path.name for path in HERE.states.iterdir())


# --- Lifetime -------------------------------------------------------------------------------


def test_a_state_has_its_request_and_is_removed_after_training():
    with hold() as training:
        assert training.directory == Path(".nanogpt/state") / VERSION
        assert training.version == VERSION
        assert read_json(training.directory / "run.json") == REQUEST.content()
        assert locks.owner(training.directory).work == "training demo"
        save(training, 5)
        training.check_owner()
    assert state_names() == []


def test_a_saved_state_is_kept_after_an_error():
    directory = leave(5, 10)
    assert state_names() == [VERSION]
    assert saved_steps(directory) == [5, 10]
    assert locks.owner(directory) is None
    with hold() as training:
        assert saved_steps(training.directory) == [5, 10]
    assert state_names() == []


def test_a_state_without_a_save_is_removed_after_an_error():
    leave()
    assert state_names() == []


def test_the_metrics_of_a_diverged_training_are_kept_until_the_next_one():
    with contextlib.suppress(DivergedError), hold() as training:
        (training.directory / "metrics.jsonl").write_text("{}")
        raise DivergedError("training diverged")
    assert state_names() == [VERSION]
    assert states.find_metrics(HERE, Path("results")) == {
        "demo": training.directory / "metrics.jsonl"
    }
    with hold():
        pass
    assert state_names() == []


def test_a_signal_that_ends_the_program_keeps_the_state_too():
    with contextlib.suppress(SystemExit), hold() as training:
        save(training, 5)
        raise SystemExit(143)
    assert state_names() == [VERSION]


def test_files_left_by_a_process_with_the_same_id_do_not_block_a_training():
    # In containers, process ids are small and reused.
    left = HERE.states / f".{VERSION}.{os.getpid()}"
    left.mkdir(parents=True)
    (left / "step-5.safetensors").touch()
    with hold() as training:
        save(training, 5)
    assert VERSION not in state_names()


# --- Ownership ------------------------------------------------------------------------------


def error_after(meanwhile):
    """The error of a training's ownership check after an event."""

    def train():
        with hold() as training:
            meanwhile(training)
            training.check_owner()

    with pytest.raises(UserError) as error:
        train()
    return str(error.value)


def test_a_training_stops_if_its_run_is_trained_with_other_settings():
    def meanwhile(training):
        save(training, 5)
        with hold(version="other"):
            training.check_owner()

    message = error_after(meanwhile)
    assert message.startswith(
        "demo: another process has started to train this run with different settings"
    )
    assert state_names() == [VERSION]


def test_another_run_does_not_stop_a_training():
    with hold() as training, hold(run="other", version="other"):
        training.check_owner()


def test_a_training_continues_if_another_requests_the_same_version():
    with hold() as training:
        # The other process does this before it waits.
        (HERE.claims / "demo").write_text(VERSION)
        training.check_owner()


def test_a_removed_claim_does_not_stop_a_training():
    with hold() as training:
        (HERE.claims / "demo").unlink()
        training.check_owner()


def take_over(training):
    """Another machine takes over because this process seems dead."""
    successor = {"pid": 1, "machine": "elsewhere", "host": "far"}
    (training.directory / "lock.2").write_text(json.dumps(successor))
    (training.directory / "lock.1").unlink()


def test_a_suspended_training_leaves_the_state_to_its_successor():
    assert "another process took over" in error_after(take_over)
    assert (HERE.states / VERSION / "lock.2").exists(), "though no step was saved"


def test_a_training_suspended_until_its_successor_finished_reports_that():
    assert "another process took over" in error_after(
        lambda training: shutil.rmtree(training.directory)
    )
    assert state_names() == []


TRAIN = """
import os, sys, time
from nanogpt.artifacts import states
from nanogpt.artifacts.records.manifests import TrainingRequest
from nanogpt.files import locks
from nanogpt.project import HERE
locks.POLL = 0.02
with states.hold(HERE, TrainingRequest.model_validate_json(sys.argv[1])) as training:
    for step in (1, 2, 3):
        with open("order", "a") as file:
            file.write(f"{os.getpid()}\\n")
        (training.directory / f"step-{step}.safetensors").touch()
        time.sleep(0.1)
        training.check_owner()
"""


def test_a_second_process_waits_for_the_training_of_the_same_version():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TRAIN, REQUEST.model_dump_json()],
                    env={**os.environ, "PYTHONPATH": path},
                )
            )
            for _ in range(2)
        ]
        assert [process.wait() for process in processes] == [0, 0]
    order = Path("order").read_text().split()
    assert len(order) == 6
    assert len(set(order[:3])) == len(set(order[3:])) == 1
    assert state_names() == []


# --- States of earlier trainings of the same run ---------------------------------------------


OTHERS = {
    "another setting": ({"parameters": {"train": {"seed": 2, "learning_rate": 0.1}}}, "train.seed"),
    "two settings": (
        {"parameters": {"train": {"seed": 2, "learning_rate": 0.2}}},
        "train.seed, train.learning_rate",
    ),
    "a setting that isn't requested now": (
        {"parameters": {"train": {"seed": 1, "learning_rate": 0.1, "beta1": 0.8}}},
        "train.beta1",
    ),
    "a setting that is new": ({"parameters": {"train": {"seed": 1}}}, "train.learning_rate"),
    "other code": ({"code": "d" * 64}, "code"),
    "other inputs": (
        {"inputs": {**REQUEST.inputs, "results/datasets/play/val.bin": "e" * 64}},
        "inputs",
    ),
    "fewer inputs": ({"inputs": {}}, "inputs"),
    "other inputs and code": ({"inputs": {}, "code": "d" * 64}, "inputs"),
    "another setting and other code": (
        {"parameters": {"train": {"seed": 2, "learning_rate": 0.1}}, "code": "d" * 64},
        "train.seed",
    ),
    "inputs elsewhere and other code": (
        {
            "inputs": {path.replace("play", "far"): x for path, x in REQUEST.inputs.items()},
            "code": "d" * 64,
        },
        "code",
    ),
}


@pytest.mark.parametrize(("changes", "difference"), OTHERS.values(), ids=OTHERS.keys())
def test_a_state_of_another_version_is_kept_and_logged_with_its_differences(
    caplog, changes, difference
):
    directory = leave(5, 10, version=OLDER, **changes)
    with hold() as training:
        assert saved_steps(training.directory) == []
    assert caplog.messages == [
        f".nanogpt/state/{OLDER}: found an unfinished training of demo with different "
        f"{difference}; starting from scratch (the old state is kept)"
    ]
    assert state_names() == [OLDER]
    assert saved_steps(directory) == [5, 10]


def test_each_state_of_another_version_is_logged(caplog):
    leave(5, version="1" * 12, code="d" * 64)
    caplog.clear()
    leave(5, version="2" * 12, code="e" * 64)
    caplog.clear()
    with hold():
        pass
    assert [message.partition(":")[0] for message in caplog.messages] == [
        ".nanogpt/state/111111111111",
        ".nanogpt/state/222222222222",
    ]


UNRELATED = {
    "of another run": lambda: leave(5, version=OLDER, run="other"),
    "with nothing saved": lambda: (HERE.states / OLDER).mkdir(parents=True),
    "being removed": lambda: leave(5, version=OLDER).rename(HERE.states / f".{OLDER}.x7f3"),
}


@pytest.mark.parametrize("leave_another", UNRELATED.values(), ids=UNRELATED.keys())
def test_a_state_that_nobody_expects_to_resume_is_not_logged(caplog, leave_another):
    leave_another()
    with hold():
        pass
    assert caplog.messages == []


def test_a_training_that_resumes_logs_no_other_state(caplog):
    leave(5, version=OLDER, code="d" * 64)
    caplog.clear()
    leave(3)
    caplog.clear()
    with hold() as training:
        assert saved_steps(training.directory) == [3]
    assert caplog.messages == []
    assert state_names() == [OLDER]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[1]", b"[" * 100_000, b'{"run": "demo"}', b'{"format": 99}'],
    ids=["empty", "not text", "a list", "deep", "fields are missing", "a later format"],
)
def test_a_state_with_a_damaged_request_is_skipped(caplog, content):
    directory = leave(5, version=OLDER)
    (directory / "run.json").write_bytes(content)
    with hold():
        pass
    assert caplog.messages == []
    assert state_names() == [OLDER]


def test_files_left_by_a_killed_removal_of_a_state_are_removed():
    remains = HERE.states / f".{VERSION}.abcdef"
    remains.mkdir(parents=True)
    with hold():
        assert not remains.exists()


# --- Finding trainings ----------------------------------------------------------------------


def write_request(version, run, age=0.0):
    directory = HERE.states / version
    directory.mkdir(parents=True)
    write_record(directory / "run.json", request(version=version, run=run))
    os.utime(directory / "run.json", (1e9 - age, 1e9 - age))
    return directory


def test_the_latest_of_several_trainings_of_a_run_is_found():
    write_request("1" * 12, "demo", age=5)
    latest = write_request("2" * 12, "demo", age=1)
    write_request("3" * 12, "demo", age=3)
    other = write_request("4" * 12, "another")
    assert states.find_trainings(HERE) == {"another": other, "demo": latest}


def test_the_latest_training_is_the_one_that_claimed_the_run_whatever_the_clocks_say():
    write_request("1" * 12, "demo")
    latest = write_request("2" * 12, "demo", age=3600)
    HERE.claims.mkdir(parents=True)
    (HERE.claims / "demo").write_text("2" * 12)
    assert states.find_trainings(HERE) == {"demo": latest}


def test_a_state_with_a_damaged_request_is_not_a_training():
    (write_request(VERSION, "demo") / "run.json").write_text("{")
    assert states.find_trainings(HERE) == {}


def test_metrics_are_the_unfinished_trainings_unless_the_run_is_finished():
    growing = write_request("1" * 12, "growing")
    write_request("2" * 12, "finished")
    finished = Path("results/finished/metrics.jsonl")
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert states.find_metrics(HERE, HERE.results) == {
        "growing": growing / "metrics.jsonl",
        "finished": finished,
    }


def test_a_state_is_below_its_projects_root(tmp_path):
    project = Project(tmp_path / "elsewhere")
    with states.hold(project, REQUEST) as training:
        assert training.directory == tmp_path / "elsewhere/.nanogpt/state" / VERSION
        assert states.find_trainings(project) == {"demo": training.directory}
        assert (tmp_path / "elsewhere/.nanogpt/runs/demo").read_text() == VERSION
        assert states.find_trainings(HERE) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
