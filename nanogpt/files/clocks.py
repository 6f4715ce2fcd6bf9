"""Find input files with a date in the future, which happens if machines' clocks differ.

Snakemake deletes a job's outputs if an input has a later date, so check this before the job starts.
"""

import os
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from nanogpt.errors import UserError

# Seconds by which clocks may differ. A job waits that long.
TOLERATED = 60.0
# Gives all these files the same date, so that none is newer than a file made from it.
REMEDY = "find results resources -newermt now -exec touch -d now {} +"


def wait_until_past(paths: Iterable[Path], directory: Path) -> None:
    """Wait until no file is dated later than a file that is written to a directory now.

    Errors: UserError if that would take more than TOLERATED seconds.
    """
    dates = {path: path.stat().st_mtime for path in paths if path.exists()}
    if not dates:
        return
    latest = max(dates, key=lambda path: dates[path])
    ahead = dates[latest] - _date_of_touch(directory)
    if ahead > TOLERATED:
        raise UserError(
            f"{latest}: dated {ahead / 60:.0f} min later than the clock of {socket.gethostname()}, "
            "so Snakemake would delete the results made from it; synchronize the clocks of all "
            f"machines and run `{REMEDY}`"
        )
    time.sleep(max(0.0, ahead))


def _date_of_touch(directory: Path) -> float:
    """Return the date of a new file, by the clock of this machine or of its file server."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # a full or read-only disk, reported when the job writes
        return time.time()
