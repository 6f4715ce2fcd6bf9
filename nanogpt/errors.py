"""Errors of users, and the one line that each becomes."""

import errno
import re


class UserError(ValueError):
    """A mistake of the user's, told in one line that names it and says what to do."""

    def __init__(self, message: str) -> None:
        # A name that is quoted in it may hold a line break.
        super().__init__(message.replace("\n", "\\n"))


def plural(number: int, noun: str) -> str:
    """`1 token`, `2,000 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class ClaimedError(UserError):
    """The run's results are another process' to make."""


class DivergedError(UserError):
    """A loss is not a number. What was measured on the way there is kept, to be looked at."""


def user_message(error: Exception) -> str | None:
    """One line for what a user can mend, None for a fault of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"disk full while writing {error.filename or 'a result'}; free some space"
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; make it readable and writable"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{error.filename}: the file system is read-only; work in another directory"
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return f"{error.filename}: {error.strerror}; move away what is in its place"
    # torch says "out of memory" of a GPU, "can't allocate memory" of a CPU.
    if isinstance(error, MemoryError) or re.search(
        "out of memory|can't allocate memory", str(error), re.IGNORECASE
    ):
        return (
            "out of memory; lower batch_size (and raise gradient_accumulation_steps to match), "
            "block_size or the model's size"
        )
    return None
