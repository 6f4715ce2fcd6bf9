"""Machines whose clocks differ by an hour make the same bytes, or say what to do at once."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from nanogpt.files.clocks import REMEDY
from tests.faults import machines
from tests.faults.attacks import (
    PATIENCE,
    TARGETS,
    TRAINED,
    assert_is_whole,
    error_line,
    log_of,
    metrics_of,
    run_trainer,
    run_workflow,
    send,
    start_trainer,
    start_workflow,
    wait_for_steps,
)

AN_HOUR = 3600


def test_an_input_from_the_future_is_an_error_before_anything_runs(
    done_copy: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    """Snakemake alone would train, and then remove the model, as it's older than the input."""
    later = time.time() + AN_HOUR
    for name in ("train.bin", "val.bin"):
        os.utime(done_copy / "results/datasets/play" / name, (later, later))
    count("fault")
    log = log_of(done_copy)
    (done_copy / "results/one/metrics.jsonl").unlink()
    call = start_workflow(done_copy, *TRAINED)
    assert call.end() == 1
    error = error_line(call.printed())
    assert ".bin: dated 60 min later than the clock of " in error
    assert f"run `{REMEDY}`" in error
    assert (done_copy / "results/one/model/model.safetensors").exists()
    assert log_of(done_copy) == log
    assert not list(done_copy.glob(".snakemake/locks/*"))
    subprocess.run(REMEDY, shell=True, cwd=done_copy, timeout=PATIENCE, check=True)
    run_workflow(done_copy, *TRAINED, *TARGETS)
    assert_is_whole(done_copy, untouched)
    assert "Nothing to be done" in run_workflow(done_copy, *TARGETS)


def test_a_machine_whose_clock_is_behind_is_named_before_it_trains(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    """Where it dates files itself. Inputs of others, and what it writes, are an hour apart."""
    late = machines.write(project, login={"ahead": -AN_HOUR, "stamps": True})
    call = start_trainer(project, **late)
    assert call.end() == 1
    count("fault")
    assert "min later than the clock of login, so Snakemake" in error_line(call.printed())
    assert metrics_of(project) is None
    run_trainer(project)
    assert_is_whole(project, untouched, later=())


def test_training_resumes_on_a_machine_two_hours_behind(
    project: Path, untouched: dict[str, object], count: Callable[[str], None]
) -> None:
    """From a machine that dates files an hour ahead to one that doesn't, and is an hour behind."""
    call = start_trainer(
        project, **machines.write(project, login={"ahead": AN_HOUR, "stamps": True})
    )
    wait_for_steps(project, call)
    metrics = metrics_of(project)
    assert metrics
    assert (metrics.parent / "run.json").stat().st_mtime > time.time() + AN_HOUR / 2
    send(call.process.pid, signal.SIGKILL)
    count("kill")
    call.end()
    run_trainer(project, **machines.write(project, login={"ahead": -AN_HOUR}))
    assert "resuming from step" in log_of(project)
    assert_is_whole(project, untouched, later=())
