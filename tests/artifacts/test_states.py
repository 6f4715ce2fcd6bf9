"""The state of a training is held by one process, kept when it stops, and gone when it is done."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt.artifacts import states as state
from nanogpt.errors import DivergedError, UserError
from nanogpt.files import locks as lock
from nanogpt.files.atomic import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0123456789ab"
ASKED = {
    "stage": "train",
    "version": VERSION,
    "inputs": {"results/datasets/play/train.bin": "a" * 64, "results/datasets/play/val.bin": "b"},
    "parameters": {"train": {"seed": 1}},
    "code": "c" * 64,
}
SETTINGS = {"train": {"seed": 1, "device": "auto"}}
OLDER = "ba9876543210"  # the version of the same training by older code


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty working directory; a lock is looked at often, as the tests are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NANOGPT_ADOPT_STATE", raising=False)
    monkeypatch.setattr(lock, "POLL", 0.02)
    return tmp_path


def hold(run="demo", **asked):
    return state.hold(run, {**ASKED, **asked}, SETTINGS)


def save(held, step, content="weights"):
    (held.directory / f"step-{step}.0123456789abcdef.safetensors").write_text(content)


class StoppedError(Exception):
    """Stands for whatever ends a training early."""


def leave(*steps, **asked):
    """A training that saves its state at these steps, and then stops."""
    with contextlib.suppress(StoppedError), hold(**asked) as held:
        for step in steps:
            save(held, step)
        raise StoppedError
    return held.directory


def states():
    return sorted(path.name for path in state.STATE.iterdir())


# --- When it comes and goes -----------------------------------------------------------------


def test_a_state_says_what_was_asked_for_and_goes_when_the_training_is_done():
    with hold() as held:
        assert held.directory == Path(".nanogpt/state") / VERSION
        assert held.version == VERSION
        assert read_json(held.directory / "run.json") == {
            "run": "demo",
            **ASKED,
            "settings": SETTINGS,
            "adopted": [],
        }
        assert lock.owner(held.directory)["work"] == "which trains demo"
        assert held.adopted == []
        save(held, 5)
        held.check_owner()
    assert states() == []


def test_a_state_that_was_saved_stays_after_an_error():
    directory = leave(5, 10)
    assert states() == [VERSION]
    assert state.saved_steps(directory) == [5, 10]
    assert lock.owner(directory) is None
    with hold() as held:
        assert state.saved_steps(held.directory) == [5, 10]
    assert states() == []


def test_a_state_that_has_saved_nothing_goes_after_an_error():
    leave()
    assert states() == []


def test_what_a_training_that_diverged_measured_stays_until_the_next_one():
    with contextlib.suppress(DivergedError), hold() as held:
        save(held, 5)
        (held.directory / "metrics.jsonl").write_text("{}")
        raise DivergedError("training diverged")
    assert states() == [VERSION]
    assert state.saved_steps(held.directory) == [], "they would lead there again"
    assert state.find_metrics(Path("results")) == {"demo": held.directory / "metrics.jsonl"}
    with hold():
        pass
    assert states() == []


def test_a_signal_that_ends_the_program_keeps_the_state_as_well():
    with contextlib.suppress(SystemExit), hold() as held:
        save(held, 5)
        raise SystemExit(143)
    assert states() == [VERSION]


def test_saved_steps_are_in_the_order_of_their_numbers():
    directory = leave(10, 9, 100)
    (directory / ".step-7.tmp").touch()
    assert state.saved_steps(directory) == [9, 10, 100]


def test_what_an_earlier_process_of_the_same_id_left_keeps_no_training_from_its_end():
    # In containers, process ids are small and come again.
    left = state.STATE / f".{VERSION}.{os.getpid()}"
    left.mkdir(parents=True)
    (left / "step-5.safetensors").touch()
    with hold() as held:
        save(held, 5)
    assert VERSION not in states()


# --- Whose it is ----------------------------------------------------------------------------


def lost(meanwhile):
    """The message to a training that looks whether it may write, after something has happened."""

    def train():
        with hold() as held:
            meanwhile(held)
            held.check_owner()

    with pytest.raises(UserError) as error:
        train()
    return str(error.value)


def test_a_run_that_is_trained_with_other_settings_elsewhere_stops_here():
    def meanwhile(held):
        save(held, 5)
        with hold(version="other"):
            held.check_owner()

    message = lost(meanwhile)
    assert message.startswith("demo: another process trains this run with other settings")
    assert states() == [VERSION]


def test_another_run_takes_nothing_from_this_one():
    with hold() as held, hold(run="other", version="other"):
        held.check_owner()


def test_a_training_goes_on_when_another_asks_for_the_same_version():
    with hold() as held:
        # What that one does before it waits.
        (state.CLAIMS / "demo").write_text(VERSION)
        held.check_owner()


def test_a_run_whose_claim_was_removed_is_nobody_elses():
    with hold() as held:
        (state.CLAIMS / "demo").unlink()
        held.check_owner()


def take_over(held):
    """Another machine takes over, as this process seems dead."""
    successor = {"pid": 1, "machine": "elsewhere", "host": "far"}
    (held.directory / "lock.2").write_text(json.dumps(successor))
    (held.directory / "lock.1").unlink()


def test_a_training_that_slept_leaves_the_state_to_its_successor():
    assert "another process has taken over" in lost(take_over)
    assert (state.STATE / VERSION / "lock.2").exists(), "though no step was saved"


def test_a_training_that_slept_until_its_successor_was_done_says_so():
    assert "another process has taken over" in lost(lambda held: shutil.rmtree(held.directory))
    assert states() == []


TRAIN = """
import json, os, sys, time
from pathlib import Path
from nanogpt.files import locks as lock
from nanogpt.artifacts import states as state
lock.POLL = 0.02
asked = json.loads(sys.argv[1])
with state.hold("demo", asked, {}) as held:
    for step in (1, 2, 3):
        with open("order", "a") as file:
            file.write(f"{os.getpid()}\\n")
        (held.directory / f"step-{step}.safetensors").touch()
        time.sleep(0.1)
        held.check_owner()
"""


def test_of_two_processes_that_train_one_version_one_waits_for_the_other():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TRAIN, json.dumps(ASKED)],
                    env={**os.environ, "PYTHONPATH": path},
                )
            )
            for _ in range(2)
        ]
        assert [process.wait() for process in processes] == [0, 0]
    order = Path("order").read_text().split()
    assert len(order) == 6
    assert len(set(order[:3])) == len(set(order[3:])) == 1
    assert states() == []


# --- Adopting the state of older code -------------------------------------------------------


def older(*steps, **asked):
    return leave(*steps, **{"version": OLDER, "code": "d" * 64, **asked})


HINT = (
    f".nanogpt/state/{OLDER} holds this training at step 10, made by other code; to go on from "
    f"there, set NANOGPT_ADOPT_STATE={OLDER}"
)


def test_a_state_of_other_code_is_told_and_left_alone(caplog):
    older(5, 10)
    with hold() as held:
        assert state.saved_steps(held.directory) == []
        assert held.adopted == []
    assert caplog.messages == [HINT]
    assert states() == [OLDER]


def test_a_state_of_other_code_is_adopted_when_it_is_named(caplog, monkeypatch):
    directory = older(5, 10)
    (directory / "milestones/5").mkdir(parents=True)
    (directory / "milestones/5/model.safetensors").write_text("kept")
    monkeypatch.setenv("NANOGPT_ADOPT_STATE", OLDER)
    with hold() as held:
        assert states() == [VERSION]
        assert state.saved_steps(held.directory) == [5, 10]
        assert (held.directory / "milestones/5/model.safetensors").read_text() == "kept"
        assert held.adopted == [OLDER]
        assert read_json(held.directory / "run.json")["adopted"] == [OLDER]
        assert read_json(held.directory / "run.json")["code"] == ASKED["code"]
        held.check_owner()
    assert caplog.messages == [f"adopted the state of .nanogpt/state/{OLDER} at step 10"]
    assert states() == []


def test_a_state_of_another_directorys_dataset_of_the_same_bytes_is_adopted(monkeypatch):
    inputs = {path.replace("play", "drama"): digest for path, digest in ASKED["inputs"].items()}
    older(5, inputs=inputs)
    monkeypatch.setenv("NANOGPT_ADOPT_STATE", OLDER)
    with hold() as held:
        assert held.adopted == [OLDER]


@pytest.mark.parametrize("restarts", [1, 2])
def test_that_a_state_was_adopted_is_known_after_a_stop_as_well(monkeypatch, caplog, restarts):
    older(5)
    monkeypatch.setenv("NANOGPT_ADOPT_STATE", OLDER)
    with pytest.raises(StoppedError), hold():
        raise StoppedError
    monkeypatch.delenv("NANOGPT_ADOPT_STATE")
    caplog.clear()
    for _ in range(restarts):
        with pytest.raises(StoppedError), hold() as held:
            raise StoppedError
        assert held.adopted == [OLDER]
        assert read_json(held.directory / "run.json")["adopted"] == [OLDER]
    assert caplog.messages == []


OTHERS = {
    "other parameters": {"parameters": {"train": {"seed": 2}}},
    "other inputs": {"inputs": {**ASKED["inputs"], "results/datasets/play/val.bin": "e"}},
    "fewer inputs": {"inputs": {}},
    "the same code": {"code": ASKED["code"]},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
def test_a_state_of_another_training_is_not_offered(caplog, monkeypatch, other, named):
    older(5, 10, **other)
    if named:
        monkeypatch.setenv("NANOGPT_ADOPT_STATE", OLDER)
    with hold() as held:
        assert state.saved_steps(held.directory) == []
        assert held.adopted == []
    told = f"NANOGPT_ADOPT_STATE={OLDER}: no state of demo; it is begun anew"
    assert caplog.messages[1:] == ([told] if named else [])
    setting = "train.seed" if "parameters" in other else "inputs"
    assert f"at step 10, of another {setting}; this one is begun anew" in caplog.messages[0]
    assert states() == [OLDER]


def test_a_name_of_no_state_is_told_with_the_states_that_there_are(caplog, monkeypatch):
    older(10)
    monkeypatch.setenv("NANOGPT_ADOPT_STATE", "0000")
    with hold() as held:
        assert held.adopted == []
    assert caplog.messages == [
        HINT,
        "NANOGPT_ADOPT_STATE=0000: no state of demo; it is begun anew",
    ]
    assert states() == [OLDER]


def test_a_training_that_has_a_state_of_its_own_adopts_none(caplog, monkeypatch):
    leave(3)
    older(10)
    caplog.clear()
    monkeypatch.setenv("NANOGPT_ADOPT_STATE", OLDER)
    with hold() as held:
        assert state.saved_steps(held.directory) == [3]
        assert held.adopted == []
    assert caplog.messages == []
    assert states() == [OLDER]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[1]",
        b"[" * 100_000,
        b'{"adopted": ["abcdef012345"]}',
        b'{"code": "d", "parameters": {"train": {"seed": 1}}, "inputs": 5}',
    ],
    ids=["empty", "no text", "a list", "deep", "killed while it adopted", "inputs of no kind"],
)
def test_a_state_that_does_not_say_what_it_is_of_is_passed_over(content):
    directory = older(5)
    (directory / "run.json").write_bytes(content)
    with hold() as held:
        assert held.adopted == []
    assert states() == [OLDER]


def test_a_state_that_was_adopted_in_part_when_its_process_was_killed_is_gone_on_from(monkeypatch):
    directory = older(5, 10)
    begun = state.STATE / VERSION
    begun.mkdir()
    write_json(begun / "run.json", {"adopted": [OLDER]})
    (name,) = (path.name for path in directory.glob("step-10.*"))
    (directory / name).rename(begun / name)
    monkeypatch.setenv("NANOGPT_ADOPT_STATE", OLDER)
    with hold() as held:
        assert held.adopted == [OLDER]
        assert 10 in state.saved_steps(held.directory)


def test_what_a_process_left_that_was_killed_while_it_removed_its_state_is_removed():
    left = state.STATE / f".{VERSION}.abcdef"
    left.mkdir(parents=True)
    with hold():
        assert not left.exists()
