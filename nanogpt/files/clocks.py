"""Files that are dated later than now, as where the clocks of two machines differ.

Snakemake removes what a job has made if one of its inputs is dated later. So that's found before
the job begins.
"""

import os
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from nanogpt.errors import UserError

# Seconds by which clocks may differ: so long, a job waits.
TOLERATED = 60.0
# All of these files get the same date, so that none is newer than what was made from it.
REMEDY = "find results resources -newermt now -exec touch -d now {} +"


def wait_until_past(paths: Iterable[Path], directory: Path) -> None:
    """Wait until files are no longer dated later than what is written to a directory now.

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
            "so Snakemake would remove what is made from it; set the clocks of all machines, as by "
            f"NTP, and run `{REMEDY}`"
        )
    time.sleep(max(0.0, ahead))


def _date_of_touch(directory: Path) -> float:
    """The date that a file gets which is touched: by the clock of this machine or of the disk's."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # a disk that is full, or not ours; that is found where something is written
        return time.time()
