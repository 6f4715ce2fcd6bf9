"""Functions for fault tests: create a project, start, watch and kill it, compare its results.

A project is a copy of this checkout with a small training. Its processes are the ones whose working
directory is inside it, so we find orphans and never anyone else's processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import SampleSettings
from tests.checkouts import copy_checkout, own_environment

FULL = os.environ.get("NANOGPT_FAULTS") == "full"
SEED = int(os.environ.get("NANOGPT_FAULT_SEED", "1"))

only_in_full = pytest.mark.skipif(not FULL, reason="NANOGPT_FAULTS=full is not set")
pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs Linux's /proc")

PATIENCE = 120  # the most seconds that anything may take on a busy machine

MAX_ITERS = 120  # in steps; about 2 s on one thread
MANY_ITERS = 500
CONFIG = {
    "corpora": {"play": {"builtin": "play", "n_characters": 100_000}},
    "datasets": {"play": {}},
    "models": {"tiny": {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 64, "dropout": 0.1}},
    "defaults": {
        "model": "tiny",
        "train": {
            "max_iters": MAX_ITERS,
            "batch_size": 8,
            "warmup_iters": 2,
            "eval_interval": 50,
            "eval_iters": 2,
            "log_interval": 5,
            "device": "cpu",
            "dtype": "float32",
        },
        "eval": {"eval_iters": 2, "device": "cpu"},
        "sample": {"num_samples": 2, "max_new_tokens": 200, "device": "cpu"},
    },
    "runs": {"one": {"dataset": "play"}},
}
TARGETS = ("results/one/samples.txt", "results/one/eval.json")
TRAINED = ("results/one/metrics.jsonl",)
MADE_BY_TRAIN = ("model/model.safetensors", "model/config.json", "model/tokenizer.json")
MADE_LATER = ("eval.json", "samples.txt")


@dataclass(frozen=True)
class Call:
    """A command that runs in its own session, with its output in a file."""

    process: subprocess.Popen
    printed_to: Path

    def end(self, timeout: float = PATIENCE) -> int:
        """Wait for the command to end; return its exit code."""
        return self.process.wait(timeout)

    def printed(self) -> str:
        return self.printed_to.read_text()


def make_project(directory: Path) -> Path:
    """Copy this checkout, with the small training and without results."""
    copy_checkout(directory)
    write_config(directory)
    return directory


def write_config(project: Path, **train: object) -> None:
    """Write config.yaml, with changed training settings if given."""
    defaults = {**CONFIG["defaults"], "train": {**CONFIG["defaults"]["train"], **train}}
    (project / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "defaults": defaults}))


def environment(**more: str) -> dict[str, str]:
    """Return a user's environment: one thread, frequent saves, no cache unless one is given."""
    own = {"OMP_NUM_THREADS": "1", "NANOGPT_SAVE_INTERVAL": "0.2", "NANOGPT_CACHE": "off"}
    return own_environment(**{**own, "PYTHONPATH": ".", **more})


def start(project: Path, command: list[str], **more: str) -> Call:
    """Start a command in a project, in its own session."""
    printed_to = project / f"printed.{time.monotonic_ns()}.txt"
    with open(printed_to, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Call(process, printed_to)


def start_workflow(project: Path, *arguments: str, **more: str) -> Call:
    """Start Snakemake for the attacked results, unless targets are given."""
    core = () if "--cores" in arguments else ("--cores", "1")
    command = [sys.executable, "-m", "snakemake", *core, *(arguments or TARGETS)]
    return start(project, command, **more)


def run_workflow(project: Path, *arguments: str, **more: str) -> str:
    """Run Snakemake, which must succeed; return its output."""
    call = start_workflow(project, *arguments, **more)
    assert call.end() == 0, call.printed()
    return call.printed()


def unlock(project: Path) -> None:
    """Unlock the working directory if a killed Snakemake left it locked."""
    if any(project.glob(".snakemake/locks/*")):
        run_workflow(project, "--unlock")


def train_command(project: Path, processes: int = 1) -> list[str]:
    """Return the command line of rule train, from the manifest of the undisturbed training."""
    manifest = read_record(project / "untouched.manifest.json", Manifest)
    return [
        *(sys.executable, "workflow/scripts/train.py", "--run", "one"),
        *("--input", *manifest.inputs),
        *("--output", *manifest.outputs, "results/one/train.manifest.json"),
        *("--settings", json.dumps(manifest.parameters), "--code", manifest.code),
        *("--untracked", json.dumps({"sample": as_parameters(SampleSettings())})),
        *(
            "--log",
            "results/one/train.log",
            "--threads",
            "1",
            "--processes",
            str(processes),
            "--sharded",
            "0",
        ),
    ]


def start_trainer(project: Path, **more: str) -> Call:
    """Start rule train's process, without Snakemake."""
    return start(project, train_command(project), **more)


def run_trainer(project: Path, **more: str) -> str:
    """Run rule train's process, which must succeed; return its output."""
    call = start_trainer(project, **more)
    assert call.end() == 0, call.printed() + log_of(project)
    return call.printed()


def processes(project: Path) -> dict[int, list[str]]:
    """Return the command lines of all processes that work in a project, by process id."""
    found = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal() or int(directory.name) == os.getpid():
            continue
        try:
            if (directory / "cwd").readlink() == project.resolve():
                command = (directory / "cmdline").read_bytes().decode().split("\0")
                if len(command) > 1:  # not a zombie
                    found[int(directory.name)] = command
        except OSError:  # it has just ended, or belongs to another user
            continue
    return found


def jobs(project: Path, stage: str = "") -> list[int]:
    """Return the processes of the workflow's scripts, or only those of one stage."""
    return [
        pid
        for pid, command in processes(project).items()
        if "python" in Path(command[0]).name and command[1].endswith(f"{stage}.py")
    ]


def send(pid: int, number: signal.Signals, *, to_group: bool = False) -> bool:
    """Send a signal to a process or process group; return whether it still existed."""
    try:
        (os.killpg if to_group else os.kill)(pid, number)
    except ProcessLookupError:
        return False
    return True


def end_all(project: Path) -> None:
    """Kill all processes that still work in a project."""
    while found := processes(project):
        for pid in found:
            send(pid, signal.SIGKILL)
        time.sleep(0.01)


def wait_until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait until a condition is true; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout} s: not {what}"
        time.sleep(0.005)


def wait_for_steps(project: Path, call: Call, n_lines: int = 6) -> None:
    """Wait until a training that has just started has written metrics and a state."""
    written = metrics_of(project)
    before = written.stat().st_mtime_ns if written else 0

    def stepping() -> bool:
        assert call.process.poll() is None, call.printed() + log_of(project)
        path = metrics_of(project)
        return (
            path is not None
            and path.stat().st_mtime_ns > before
            and path.read_bytes().count(b"\n") >= n_lines
            and bool(states(project))
        )

    wait_until(stepping, "training")


def metrics_of(project: Path) -> Path | None:
    """Return the metrics of the unfinished training."""
    return next(project.glob(".nanogpt/state/[!.]*/metrics.jsonl"), None)


def states(project: Path) -> list[Path]:
    """Return the files of saved states, newest last."""
    found = project.glob(".nanogpt/state/[!.]*/step-*.safetensors")
    return sorted(found, key=lambda path: int(path.name.split(".")[0].removeprefix("step-")))


def log_of(project: Path, stage: str = "train") -> str:
    path = project / f"results/one/{stage}.log"
    return path.read_text() if path.exists() else ""


def forget(project: Path) -> None:
    """Remove all results of the run, so that it's run again."""
    shutil.rmtree(project / "results/one", ignore_errors=True)
    shutil.rmtree(project / ".nanogpt", ignore_errors=True)


def made(project: Path, names: tuple[str, ...] = MADE_BY_TRAIN + MADE_LATER) -> dict[str, object]:
    """Return everything that must not depend on how often a run was stopped.

    This is the bytes of results by name, including half-written files, and metrics without times.
    """
    run = project / "results/one"
    found: dict[str, object] = {n: (run / n).read_bytes() for n in names if (run / n).exists()}
    if (run / "metrics.jsonl").exists():
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        timed = ("seconds", "tokens_per_second")
        found["metrics.jsonl"] = [{k: v for k, v in x.items() if k not in timed} for x in lines]
    return found


def assert_is_whole(
    project: Path, untouched: dict[str, object], later: tuple[str, ...] = MADE_LATER
) -> None:
    """Check that the results equal those of an undisturbed run and nothing else is left."""
    wait_until(lambda: not processes(project), "all processes of the project at their ends")
    found = made(project)
    expected = {n: what for n, what in untouched.items() if n not in MADE_LATER or n in later}
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert litter(project) == []
    assert not list(project.glob(".nanogpt/state/*")), "a finished training leaves no state"


def litter(project: Path) -> list[Path]:
    """Return temporary files that a writer has left next to results."""
    return [*project.glob("results/**/*.tmp"), *project.glob(".nanogpt/cache/.*")]


def error_line(printed: str) -> str:
    """Return the one error line of a user's mistake; there must be no traceback."""
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, printed
    assert "Traceback" not in printed, printed
    return errors[0]


@contextmanager
def small_disk(directory: Path, size: int = 1 << 24) -> Iterator[Callable[[int | None], None]]:
    """Put a directory on its own disk. Yields a function that sets the free bytes; None: all.

    Skips the test without root.
    """
    aside = directory.with_name(f"{directory.name}.aside")
    directory.mkdir(parents=True, exist_ok=True)
    directory.rename(aside)
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode:
        directory.rmdir()
        aside.rename(directory)
        pytest.skip("no file system can be mounted here")
    shutil.copytree(aside, directory, dirs_exist_ok=True)
    shutil.rmtree(aside)

    def leave(free: int | None) -> None:
        ballast = directory / ".ballast"
        ballast.unlink(missing_ok=True)
        if free is None:
            return
        there = os.statvfs(directory)
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, there.f_bavail * there.f_bsize - free)

    try:
        yield leave
    finally:
        subprocess.run(["umount", "-l", str(directory)], timeout=PATIENCE, check=True)
