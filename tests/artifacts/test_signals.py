"""A signal makes a training save or stop, and other stages exit cleanly."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt.artifacts.signals import Stopped, exiting, listening

ROOT = Path(__file__).resolve().parents[2]
STOPPING = [signal.SIGTERM, signal.SIGINT]
ALL = [*STOPPING, signal.SIGUSR1]


def send(number):
    os.kill(os.getpid(), number)


def handlers():
    return {number: signal.getsignal(number) for number in ALL}


@pytest.mark.parametrize("number", STOPPING)
def test_a_stop_signal_waits_for_the_end_of_a_step(number):
    with listening() as signals:
        assert signals.stop is None
        send(number)
        assert signals.stop == number
        assert not signals.save


def test_a_save_signal_does_not_stop():
    with listening() as signals, signals.interrupting():
        send(signal.SIGUSR1)
        assert signals.save
        assert signals.stop is None


def test_the_first_stop_signal_counts():
    with listening() as signals:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert signals.stop == signal.SIGTERM


@pytest.mark.parametrize("number", STOPPING)
def test_an_evaluation_is_interrupted_immediately(number):
    left = []
    with listening() as signals:
        with contextlib.suppress(Stopped), signals.interrupting():
            send(number)
            left.append("late")
        send(number)  # no longer raises afterwards
    assert left == []
    assert signals.stop == number


def test_an_evaluation_does_not_start_after_a_signal():
    begun = []
    with listening() as signals:
        send(signal.SIGTERM)
        with pytest.raises(Stopped), signals.interrupting():
            begun.append("late")
        send(signal.SIGTERM)
    assert begun == []


def test_no_error_handler_catches_a_stop():
    def evaluate(signals):
        with signals.interrupting(), contextlib.suppress(Exception):
            send(signal.SIGTERM)

    with listening() as signals, pytest.raises(Stopped):
        evaluate(signals)


@pytest.mark.parametrize("taking", [listening, exiting])
@pytest.mark.parametrize("error", [None, KeyError, Stopped])
def test_signal_handlers_are_restored_afterwards(taking, error):
    before = handlers()
    try:
        with taking():
            assert all(now != before[number] for number, now in handlers().items())
            if error:
                raise error
    except (KeyError, Stopped):
        pass
    assert handlers() == before


def test_a_training_inside_a_stage_handles_signals_until_it_ends():
    with exiting():
        with listening() as signals:
            send(signal.SIGTERM)
            assert signals.stop == signal.SIGTERM
        with pytest.raises(SystemExit) as ended:
            send(signal.SIGTERM)
    assert ended.value.code == 143


@pytest.mark.parametrize("number", STOPPING)
def test_a_stage_exits_cleanly_with_128_plus_the_signal(number):
    cleaned = []

    def work():
        with exiting():
            try:
                send(number)
            finally:
                cleaned.append("up")

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 128 + number
    assert cleaned == ["up"]


def test_a_stage_with_nothing_to_save_continues():
    with exiting():
        send(signal.SIGUSR1)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_sleeping_process_ends_immediately_without_a_traceback(number, code):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    program = (
        "import time\nfrom nanogpt.artifacts.signals import exiting\n"
        "with exiting():\n    print('ready', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == code
