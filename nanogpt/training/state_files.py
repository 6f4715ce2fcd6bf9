"""The files of a training's saved states: their names, and which there are.

`step-<step>.<digest>.safetensors`: the file's own digest, in its name, shows damage. A training by
several ranks has parts beside a state, `part-<step>.<digest>.safetensors`.
"""

import contextlib
import re
import time
from pathlib import Path

from nanogpt.artifacts.states import SAVED_STATES
from nanogpt.files.atomic import sha256_file

# The last one may turn out to be damaged.
STATES_KEPT = 2
STATE_NAME = re.compile(r"step-[0-9]+\.")
PARTS, PART_NAME = "part-*.safetensors", re.compile(r"part-[0-9]+\.")
DIGITS = 16  # of the digest, in a name
# Seconds that a file may take to show on another node: NFS may look at a directory once a minute.
LATE = 90.0
WAIT = 0.2  # between two looks


def remove_states(directory: Path) -> None:
    """Remove the saved states of a training; nothing else in its directory."""
    for path in [*find_states(directory), *_part_files(directory)]:
        path.unlink(missing_ok=True)


def remove_old_states(directory: Path) -> None:
    """Remove the states before the last two, and their parts."""
    states = find_states(directory)
    for path in states[STATES_KEPT:]:
        path.unlink(missing_ok=True)
    oldest = step_of(states[:STATES_KEPT][-1])
    for path in _part_files(directory):
        if step_of(path) < oldest:
            path.unlink(missing_ok=True)


def state_name(step: int, digest: str) -> str:
    """The name of a saved state's file."""
    return f"step-{step}.{digest[:DIGITS]}.safetensors"


def part_name(step: int, digest: str) -> str:
    """The name of the file of a rank other than 0."""
    return f"part-{step}.{digest[:DIGITS]}.safetensors"


def is_whole(path: Path) -> bool:
    """Whether a file is there and has the digest that its name has."""
    try:
        return digest_in(path.name) == sha256_file(path)[:DIGITS]
    except FileNotFoundError:
        return False


def wait_for_file(path: Path) -> bool:
    """Wait for a file that another node has written; whether it's there in time."""
    deadline = time.monotonic() + LATE
    while not (is_there := path.exists()) and time.monotonic() < deadline:
        time.sleep(WAIT)
    return is_there


def digest_in(name: str) -> str:
    """The digest in a name, as hex digits."""
    return name.split(".")[1]


def find_states(directory: Path) -> list[Path]:
    """The files of the states in a directory, newest first."""
    found = []
    for path in _state_files(directory):
        with contextlib.suppress(FileNotFoundError):  # a directory over the network, seen late
            found.append((step_of(path), path.stat().st_mtime_ns, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def saved_steps(directory: Path) -> list[int]:
    """The steps at which the states in a directory were saved, in order."""
    return sorted(map(step_of, _state_files(directory)))


def step_of(path: Path) -> int:
    """The step at which a state or a part was saved, by its file's name."""
    return int(path.name.partition("-")[2].partition(".")[0])


def _state_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob(SAVED_STATES) if STATE_NAME.match(path.name)]


def _part_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob(PARTS) if PART_NAME.match(path.name)]
