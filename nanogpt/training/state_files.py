"""The files of a training's saved states: name them, find them, remove old ones.

A state is `step-<step>.<digest>.safetensors`. The digest is the file's own, so it reveals damage.
With several ranks, a state also has parts, `part-<step>.<digest>.safetensors`.
"""

import contextlib
import re
import time
from pathlib import Path

from nanogpt.artifacts.states import SAVED_STATES
from nanogpt.errors import UserError
from nanogpt.files.atomic import sha256_file

# Keep two, because the last one may turn out to be damaged.
STATES_KEPT = 2
STATE_NAME = re.compile(r"step-[0-9]+\.")
PARTS, PART_NAME = "part-*.safetensors", re.compile(r"part-[0-9]+\.")
DIGITS = 16  # of the digest, in a name
# The most seconds until a file must be visible on another node. NFS may check a directory only once
# a minute.
LATE = 90.0
WAIT = 0.2  # seconds between two checks


def remove_states(directory: Path) -> None:
    """Remove the saved states of a training, and nothing else in its directory."""
    for path in [*find_states(directory), *_part_files(directory)]:
        path.unlink(missing_ok=True)


def remove_old_states(directory: Path) -> None:
    """Remove all but the last two states, with their parts."""
    states = find_states(directory)
    for path in states[STATES_KEPT:]:
        path.unlink(missing_ok=True)
    oldest = step_of(states[:STATES_KEPT][-1])
    for path in _part_files(directory):
        if step_of(path) < oldest:
            path.unlink(missing_ok=True)


def state_name(step: int, digest: str) -> str:
    """Return the name of a saved state's file."""
    return f"step-{step}.{digest[:DIGITS]}.safetensors"


def part_name(step: int, digest: str) -> str:
    """Return the name of the file of a rank other than 0."""
    return f"part-{step}.{digest[:DIGITS]}.safetensors"


def is_whole(path: Path) -> bool:
    """Whether a file exists and its digest matches its name."""
    try:
        return digest_in(path.name) == sha256_file(path)[:DIGITS]
    except FileNotFoundError:
        return False


def wait_for_file(path: Path) -> bool:
    """Wait for a file that another node has written; return whether it appears in time."""
    deadline = time.monotonic() + LATE
    while not (is_there := path.exists()) and time.monotonic() < deadline:
        time.sleep(WAIT)
    return is_there


def wait_for_rank_0s_file(path: Path, rank: str) -> None:
    """Wait until a file that rank 0 has is visible on this node. rank: its name in a message.

    Errors: UserError if it doesn't appear.
    """
    if not wait_for_file(path):
        raise UserError(
            f"{rank}: {path}: rank 0 has this file, but it hasn't appeared here within "
            f"{LATE:.0f} seconds; put the project on a disk that all nodes share"
        )


def digest_in(name: str) -> str:
    """Return the hex digits of the digest in a name."""
    return name.split(".")[1]


def find_states(directory: Path) -> list[Path]:
    """Return the files of the states in a directory, newest first."""
    found = []
    for path in _state_files(directory):
        with contextlib.suppress(FileNotFoundError):  # a directory over the network, seen late
            found.append((step_of(path), path.stat().st_mtime_ns, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def saved_steps(directory: Path) -> list[int]:
    """Return the steps of the states in a directory, in order."""
    return sorted(map(step_of, _state_files(directory)))


def step_of(path: Path) -> int:
    """Return the step of a state or a part, from its file's name."""
    return int(path.name.partition("-")[2].partition(".")[0])


def _state_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob(SAVED_STATES) if STATE_NAME.match(path.name)]


def _part_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob(PARTS) if PART_NAME.match(path.name)]
