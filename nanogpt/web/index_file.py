"""The file of the index of runs: an SQLite database that can be lost at any time."""

import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from nanogpt.web.entries import Entry, RunValues

logger = logging.getLogger(__name__)

FORMAT = 1
PATIENCE = 0.5  # seconds to wait for another process's lock on the file

TABLE = """
create table if not exists runs (
    name text primary key, stamp text not null,
    status text not null, note text not null, dataset text not null,
    step integer, max_iters integer, best_val_loss real, last_loss real, bits_per_byte real,
    n_parameters integer, seconds_left real, heartbeat real, updated real not null,
    settings text not null
) strict
"""
COLUMNS = ("stamp", *Entry.model_fields, "settings")


class Row(BaseModel, frozen=True):
    """A run in the index. stamp: of its files."""

    stamp: str
    entry: Entry
    settings: RunValues = {}


class _Values(BaseModel):
    values: RunValues


class IndexFile:
    """Rows by name, in a file if possible. An unusable file is made again, or else not used."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None

    def load(self) -> dict[str, Row]:
        """Return the rows in the file; none if it can't be used."""
        if self.path is None:
            return {}
        try:
            return self._open()
        except (sqlite3.Error, ValidationError, OSError) as error:
            if _is_damage(error):
                logger.warning("%s: damaged (%s); making it again", self.path, _one_line(error))
                self._make_again()
            else:
                self._give_up(error)
        return {}

    def save(self, rows: Iterable[Row], removed: Iterable[str]) -> None:
        """Add or replace rows, and remove others."""
        if self._database is None:
            return
        marks = ", ".join("?" * len(COLUMNS))
        try:
            values = [
                (
                    row.stamp,
                    *row.entry.model_dump().values(),
                    _Values(values=row.settings).model_dump_json(),
                )
                for row in rows
            ]
            with self._database:
                self._database.executemany(
                    f"insert or replace into runs ({', '.join(COLUMNS)}) values ({marks})", values
                )
                self._database.executemany(
                    "delete from runs where name = ?", [(name,) for name in removed]
                )
        except (sqlite3.Error, OverflowError, ValueError) as error:
            # The next start reads the runs again.
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._database:
            self._database.close()
            self._database = None

    def _open(self) -> dict[str, Row]:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Threads share it, one at a time.
        database = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
        self._database = database
        found = database.execute("pragma user_version").fetchone()[0]
        if found not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"format {found}")
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        with database:
            database.execute(TABLE)
            database.execute(f"pragma user_version = {FORMAT}")
            # Fails now rather than later if the file can't be written.
            database.execute("delete from runs where name = ''")
        rows = {}
        for values in database.execute(f"select {', '.join(COLUMNS)} from runs"):
            stamp, *fields, settings = values
            entry = Entry.model_validate(dict(zip(Entry.model_fields, fields, strict=True)))
            rows[entry.name] = Row(
                stamp=stamp,
                entry=entry,
                settings=_Values.model_validate_json(settings).values,
            )
        return rows

    def _make_again(self) -> None:
        assert self.path is not None
        self.close()
        try:
            for ending in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        logger.warning(
            "%s: can't be used (%s); keeping the index of runs in memory",
            self.path,
            _one_line(error),
        )
        self.close()


def _is_damage(error: Exception) -> bool:
    """Whether a file's content is wrong, rather than locked, read-only or on a full disk."""
    if not isinstance(error, sqlite3.OperationalError):
        return not isinstance(error, OSError)
    # Another table than ours; or, without a code, a text that isn't UTF-8.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR


def _one_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
