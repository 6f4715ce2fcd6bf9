"""The state of an unfinished training: who holds it, whose it is, and when it goes.

It lies in `.nanogpt/state/<version>/`: run.json, which says what was asked for, the lock, the
metrics so far and the saved states. What is in those, checkpoint.py knows.
"""

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt.errors import ClaimedError, DivergedError
from nanogpt.files import locks as lock
from nanogpt.files.atomic import read_json, write_json, write_text

logger = logging.getLogger(__name__)

STATE = Path(".nanogpt/state")
STATE_NAME = re.compile(r"step-[0-9]+\.")
CLAIMS = Path(".nanogpt/runs")  # a file a run, with the version that is to be its result


@dataclass(frozen=True)
class Held:
    """The state of a version, which this process holds."""

    directory: Path
    version: str
    adopted: Sequence[str] = ()  # versions of other code whose states were taken
    # UserError if another process holds it now, and this one may not write a state any more.
    check_lock: Callable[[], None] = lambda: None
    # The same, or ClaimedError: this process may not write results.
    check_owner: Callable[[], None] = lambda: None


@contextmanager
def hold(run: str, asked: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[Held]:
    """Hold a version's state, once nobody else does; remove it when the block ends well.

    asked: what a manifest says that was asked for. settings: the run's, as config.yaml gives them.
    One that has saved nothing is removed in any case, but for the metrics of one that diverged.
    """
    version = asked["version"]
    directory = STATE / version
    # A process that still trains this run with other settings finds its version gone, and stops.
    claim = CLAIMS / run
    write_text(claim, version)
    with lock.hold(directory, f"which trains {run}") as held:

        def check_owner() -> None:
            held.check()
            if claim.exists() and claim.read_text() != version:
                raise ClaimedError(
                    f"{run}: another process trains this run with other settings or code now; "
                    "this one stops"
                )

        # By one that was killed while it removed its state.
        for left in STATE.glob(f".{version}.*"):
            shutil.rmtree(left, ignore_errors=True)
        adopted = _adopt(directory, run, asked)
        said = {"run": run, **asked, "settings": settings, "adopted": adopted}
        write_json(directory / "run.json", said)
        finished = diverged = False
        try:
            yield Held(directory, version, adopted, held.check, check_owner)
            finished = True
        except DivergedError:
            diverged = True
            if held.is_mine():
                for path in _state_files(directory):  # they lead there again
                    path.unlink(missing_ok=True)
            raise
        finally:
            kept = diverged or saved_steps(directory)
            # What another process has taken over is that one's.
            if held.is_mine() and (finished or not kept):
                # Gone at once for whoever waits for it.
                gone = Path(tempfile.mkdtemp(dir=STATE, prefix=f".{version}."))
                directory.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)


def find_trainings() -> dict[str, Path]:
    """The state of each run's unfinished training; the last one, where there are several."""
    found: dict[str, tuple[float, Path]] = {}
    for path in STATE.glob("[!.]*/run.json"):
        run = _read(path.parent).get("run")
        with contextlib.suppress(FileNotFoundError):  # the training has ended
            began = path.stat().st_mtime
            if isinstance(run, str) and (run not in found or found[run][0] < began):
                found[run] = (began, path.parent)
    return {run: state for run, (_, state) in sorted(found.items())}


def find_metrics(results: Path) -> dict[str, Path]:
    """The metrics.jsonl of each run, by name; of a training that goes on, the one that grows."""
    growing = {run: state / "metrics.jsonl" for run, state in find_trainings().items()}
    # What is in results/ is removed when a training begins.
    return growing | {path.parent.name: path for path in results.glob("*/metrics.jsonl")}


def state_name(step: int, digest: str) -> str:
    """The name of a saved state's file."""
    return f"step-{step}.{digest[:16]}.safetensors"


def find_states(directory: Path) -> list[Path]:
    """The files of the states in a directory, newest first."""
    found = _state_files(directory)
    return sorted(found, key=lambda path: (step_of(path), path.stat().st_mtime_ns), reverse=True)


def saved_steps(directory: Path) -> list[int]:
    """The steps at which the states in a directory were saved, in order."""
    return sorted(map(step_of, _state_files(directory)))


def _state_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("step-*.safetensors") if STATE_NAME.match(path.name)]


def step_of(path: Path) -> int:
    """The step at which a state was saved, by its file's name."""
    return int(path.name.removeprefix("step-").partition(".")[0])


def _adopt(directory: Path, run: str, asked: Mapping[str, Any]) -> list[str]:
    """Take the saved states of the same training by other code, if NANOGPT_ADOPT_STATE names it.

    Where a state is left that one might have expected to go on from, the log says why.

    Returns the versions of that code, also when its states were taken by an earlier call.
    """
    if saved_steps(directory):
        return _adopted(directory)
    wanted = os.environ.get("NANOGPT_ADOPT_STATE")
    for other in sorted(STATE.glob("[!.]*")):
        steps = saved_steps(other)
        if other == directory or not steps:
            continue
        said = _read(other)
        if not _differs_in_code_alone(said, asked):
            if said.get("run") == run:
                _tell_differences(other, steps[-1], said, asked)
            continue
        if other.name != wanted:
            logger.warning(
                "%s holds this training at step %d, made by other code; to go on from there, set "
                "NANOGPT_ADOPT_STATE=%s",
                other,
                steps[-1],
                other.name,
            )
            continue
        with lock.hold(other, "which adopts its state"):
            if not saved_steps(other):  # its owner was waited for, and has finished
                continue
            adopted = [*_adopted(other), other.name]
            write_json(directory / "run.json", {"adopted": adopted})
            for path in other.iterdir():
                if path.name.startswith(("step-", "milestones")):
                    path.rename(directory / path.name)
            shutil.rmtree(other)
        logger.warning("adopted the state of %s at step %d", other, steps[-1])
        return adopted
    if wanted:
        logger.warning("NANOGPT_ADOPT_STATE=%s: no state of %s; it is begun anew", wanted, run)
    return []


def _tell_differences(
    other: Path, step: int, said: Mapping[str, Any], asked: Mapping[str, Any]
) -> None:
    before, now = (
        {
            f"{group}.{name}": value
            for group, settings in one.get("parameters", {}).items()
            for name, value in settings.items()
        }
        for one in (said, asked)
    )
    differing = [name for name in now if before.get(name) != now[name]] or ["inputs"]
    logger.warning(
        "%s holds an unfinished training of this run at step %d, of another %s; this one is begun "
        "anew, and that one kept",
        other,
        step,
        ", ".join(differing),
    )


def _adopted(directory: Path) -> list[str]:
    return list(_read(directory).get("adopted", []))


def _read(directory: Path) -> dict[str, Any]:
    try:
        said = read_json(directory / "run.json")
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _differs_in_code_alone(said: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    def inputs(of: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [(Path(path).name, digest) for path, digest in of["inputs"].items()]

    return (
        isinstance(said.get("inputs"), dict)
        and said.get("code", asked["code"]) != asked["code"]
        and said.get("parameters") == asked["parameters"]
        and inputs(said) == inputs(asked)
    )
