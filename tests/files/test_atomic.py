"""A file is written completely or not at all, and its digest is the standard one."""

import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt.files.atomic import (
    NAME_BYTES,
    atomic_write,
    fit_name,
    read_json,
    remove_temporaries,
    sha256_file,
    write_json,
    write_text,
)

ROOT = Path(__file__).resolve().parents[2]


def write_half(path, error):
    """Fail with `error` in the middle of writing."""
    with atomic_write(path) as file:
        file.write(b"half of the new")
        raise error


class Interrupted(BaseException):
    """Not an Exception, like KeyboardInterrupt."""


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_a_failure_leaves_the_old_file_and_no_temporary_files(tmp_path, error):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_of_the_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="stop"):
        write_half(tmp_path / "new", ValueError("stop"))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_no_temporary_files(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"), atomic_write(tmp_path / "taken") as file:
        file.write(b"a directory stands there")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_reader_of_the_old_file_can_continue_reading_it(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_text(path, "new")
        assert reader.read() == b"old"


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    script = (
        "import os, signal, sys\n"
        "from nanogpt.files.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half of the new')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_the_temporary_file_is_in_the_same_directory_and_synced_before_the_rename(
    tmp_path, monkeypatch
):
    done = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("sync directory" if is_directory else "sync file")
        fsync(descriptor)

    def watched_replace(source, target):
        assert Path(source).parent == Path(target).parent
        assert Path(source).read_bytes() == b"all of it"
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_text(tmp_path / "result.txt", "all of it")
    assert done == ["sync file", "rename", "sync directory"]


def test_the_directory_is_created(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


LONG_NAMES = {
    "letters": "n" * NAME_BYTES,
    "accents": "é" * (NAME_BYTES // 2),
    "as long as needs no cut": "n" * (NAME_BYTES - len("..12345678.tmp")),
}


@pytest.mark.parametrize("name", LONG_NAMES.values(), ids=LONG_NAMES)
def test_a_name_can_be_as_long_as_the_file_system_allows(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"whole")
        (temporary,) = tmp_path.iterdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    temporary.write_bytes(b"half")  # left by a killed process
    remove_temporaries(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_only_long_names_are_shortened_and_they_stay_different():
    assert fit_name("n" * NAME_BYTES) == "n" * NAME_BYTES
    long, other = (fit_name("n" * NAME_BYTES + end) for end in "ab")
    assert len(long) == len(other) == NAME_BYTES
    assert long != other


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_files_have_the_mode_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "result.txt", "text")
        assert os.umask(umask) == umask  # and the argument is unchanged
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "result.txt").stat().st_mode) == mode


def test_text_is_written_as_utf_8_with_its_line_ends(tmp_path):
    write_text(tmp_path / "t", "é\r\n\n€😀")
    assert (tmp_path / "t").read_bytes() == "é\r\n\n€😀".encode()


def test_json_is_readable_and_survives_a_round_trip(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"text": "é\n"}, "tiny": 5e-324}
    write_json(tmp_path / "v.json", value)
    text = (tmp_path / "v.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "v.json") == value
    assert json.loads(text) == value
    assert "é" in text
    assert text.count("\n") > 5
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_writing_nan_is_an_error_that_keeps_the_old_file(tmp_path, number):
    path = tmp_path / "v.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": number})
    assert read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_is_the_standard_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    # From FIPS 180-2, appendix B.1, and the digest of the empty string.
    assert sha256_file(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert sha256_file(tmp_path / "empty") == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
