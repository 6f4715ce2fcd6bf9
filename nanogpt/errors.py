"""Users' mistakes, and the one-line message that each of them gets."""

import errno
import re

# In characters. The middle of a longer message is cut, and so is the end of a longer quotation.
LONGEST_MESSAGE = 2000
LONGEST_QUOTED = 80


# What to do about a file of the workflow that is missing or damaged.
REMAKE = "delete the file and run the workflow again"
RUN_AGAIN = "run the workflow again"


class UserError(ValueError):
    """A user's mistake, with a one-line message: where it is, what's wrong, and what to do."""

    def __init__(self, message: str) -> None:
        # A name in it may have line breaks, or bytes that aren't UTF-8.
        line = "".join(map(_printable, message))
        if len(line) > LONGEST_MESSAGE:
            half = LONGEST_MESSAGE // 2
            line = f"{line[:half]} … {line[-half:]}"
        super().__init__(line)


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def shorten(text: str, length: int = LONGEST_QUOTED) -> str:
    """Cut a text that's too long for a message."""
    return text if len(text) <= length else f"{text[:length]}…"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: `1 token`, `2,000 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def missing_file(path: object) -> UserError:
    """The error for a file of the workflow that doesn't exist."""
    return UserError(f"{path}: no such file; {RUN_AGAIN}")


def damaged_file(path: object) -> UserError:
    """The error for a file of the workflow that can't be read as what it should be."""
    return UserError(f"{path}: damaged; {REMAKE}")


def in_backticks(message: str) -> str:
    """Put names in a message of pydantic's into backticks, as our messages have them."""
    return message.replace("'", "`")


class NoTextError(UserError):
    """A file of a corpus has no text. That's only a mistake if no other file has any."""

    def __init__(self, path: object, more: str = "") -> None:
        super().__init__(f"{path}: no text in it{more}; add text or use another file")


class ClaimedError(UserError):
    """Another process is already making the run's results."""


class LostRankError(UserError):
    """Another process of the same training has ended or doesn't respond."""


class PrintedElsewhereError(UserError):
    """Another process of the same training prints what went wrong."""


class DivergedError(UserError):
    """A loss isn't a number. The metrics up to that step are kept."""


def user_message(error: Exception) -> str | None:
    """Return one line for an error that the user can fix; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"disk full while writing {error.filename or 'a result'}; free some space"
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; make it readable and writable"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{error.filename}: the file system is read-only; work in another directory"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{shorten(str(error.filename))}: name too long; use a shorter one"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        where = f"{error.filename}: " if error.filename else ""  # a pipe or socket has no name
        if error.errno == errno.ENFILE:
            return (
                f"{where}this machine has too many open files; close other programs, or try again "
                "later"
            )
        return f"{where}too many open files; raise the limit with `ulimit -n 65536`"
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return f"{error.filename}: {error.strerror}; move or remove what's there"
    # torch's message is "out of memory" for a GPU and "can't allocate memory" for a CPU.
    if isinstance(error, MemoryError) or re.search(
        "out of memory|can't allocate memory", str(error), re.IGNORECASE
    ):
        return (
            "out of memory; lower batch_size (and raise gradient_accumulation_steps to match), "
            "block_size or the model's size"
        )
    return None
