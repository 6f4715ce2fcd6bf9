"""Files that are dated later than now are waited for, or are one line."""

import os
import time

import pytest

from nanogpt.errors import UserError
from nanogpt.files import clocks
from nanogpt.files.clocks import wait_until_past


def dated(path, seconds):
    """A file that is dated so many seconds from now."""
    path.touch()
    os.utime(path, (time.time() + seconds,) * 2)
    return path


@pytest.fixture
def slept(monkeypatch):
    """How long was slept, each time."""
    found = []
    monkeypatch.setattr(clocks.time, "sleep", found.append)
    return found


def test_files_of_the_past_are_not_waited_for(tmp_path, slept):
    wait_until_past([dated(tmp_path / "a", -5), tmp_path / "missing"], tmp_path)
    wait_until_past([], tmp_path)
    assert slept in ([0.0], [])


def test_a_clock_that_is_some_seconds_ahead_is_waited_for(tmp_path, slept):
    wait_until_past([dated(tmp_path / "a", 20), dated(tmp_path / "b", 30)], tmp_path)
    assert slept == [pytest.approx(30, abs=5)]


def test_a_clock_an_hour_ahead_is_an_error_that_names_the_file(tmp_path, slept):
    paths = [dated(tmp_path / "a", -20), dated(tmp_path / "b", 3630)]
    with pytest.raises(UserError, match=r"b: dated 60 min later than the clock of .* run `find "):
        wait_until_past(paths, tmp_path)
    assert slept == []


def test_a_read_only_directory_is_not_an_error_here(tmp_path, slept):
    wait_until_past([dated(tmp_path / "a", 20)], tmp_path / "missing")
    assert slept == [pytest.approx(20, abs=5)]
