"""Errors that users can fix become one line; bugs keep their traceback."""

import errno

import pytest

from nanogpt.errors import ClaimedError, DivergedError, UserError, plural, user_message

LINES = {
    "a mistake": (UserError("text.txt: too short"), "text.txt: too short"),
    "a claimed run": (ClaimedError("demo: trained elsewhere"), "demo: trained elsewhere"),
    "a diverged loss": (DivergedError("training diverged"), "training diverged"),
    "no space": (OSError(errno.ENOSPC, "", "a.bin"), "disk full while writing a.bin; free"),
    "no quota": (OSError(errno.EDQUOT, "", "a.bin"), "disk full while writing a.bin; free"),
    "a file's limit": (OSError(errno.EFBIG, ""), "disk full while writing a result; free"),
    "no permission": (PermissionError(errno.EACCES, "", "a.bin"), "a.bin: permission denied;"),
    "a read-only disk": (OSError(errno.EROFS, "", "a.bin"), "a.bin: the file system is read-only;"),
    "a long name": (
        OSError(errno.ENAMETOOLONG, "", "a" * 300),
        f"{'a' * 80}…: name too long",
    ),
    "too many files": (OSError(errno.EMFILE, "", "a.bin"), "a.bin: too many open files; raise the"),
    "too many pipes": (OSError(errno.EMFILE, ""), "too many open files; raise the limit with"),
    "too many files of all programs": (
        OSError(errno.ENFILE, "", "a.bin"),
        "a.bin: this machine has too many open files; close other programs",
    ),
    "a file in the way": (
        FileExistsError(errno.EEXIST, "File exists", "a"),
        "a: File exists; move or remove what's there",
    ),
    "no memory": (MemoryError(), "out of memory; lower batch_size"),
    "no memory of a GPU": (RuntimeError("CUDA out of memory. Tried"), "out of memory; lower"),
    "no memory of torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of"),
}


@pytest.mark.parametrize(("error", "line"), LINES.values(), ids=LINES.keys())
def test_errors_that_users_can_fix_get_one_line(error, line):
    message = user_message(error)
    assert message.startswith(line)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), OSError(errno.EIO, "", "a")])
def test_bugs_get_no_message(error):
    assert user_message(error) is None


def test_line_break_in_a_name_is_escaped():
    assert str(UserError("no run `a\nb`")) == "no run `a\\nb`"


def test_plural_is_used_except_for_one():
    assert [plural(number, "token") for number in (0, 1, 2, 2000)] == [
        "0 tokens",
        "1 token",
        "2 tokens",
        "2,000 tokens",
    ]
