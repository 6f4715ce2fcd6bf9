"""Errors of users, and the one line that each becomes."""

import errno
import re

# Characters of a message, of which the middle is left out beyond, and of what a message quotes.
LONGEST_MESSAGE = 2000
LONGEST_QUOTED = 80


class UserError(ValueError):
    """A mistake of the user's, told in one line that names it and says what to do."""

    def __init__(self, message: str) -> None:
        # A name that is quoted in it may hold line breaks, or bytes that aren't UTF-8.
        line = "".join(map(_printable, message))
        if len(line) > LONGEST_MESSAGE:
            half = LONGEST_MESSAGE // 2
            line = f"{line[:half]} … {line[-half:]}"
        super().__init__(line)


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def shorten(text: str, length: int = LONGEST_QUOTED) -> str:
    """A text that a message quotes, cut where it's long."""
    return text if len(text) <= length else f"{text[:length]}…"


def plural(number: int, noun: str) -> str:
    """`1 token`, `2,000 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class NoTextError(UserError):
    """A file of a corpus has no text, which is no mistake beside others that have."""

    def __init__(self, path: object, more: str = "") -> None:
        super().__init__(
            f"{path}: no text in it{more}; put a text there, or take it out of the corpus"
        )


class ClaimedError(UserError):
    """The run's results are another process' to make."""


class LostRankError(UserError):
    """Another process of the same training has ended, or doesn't answer."""


class ToldElsewhereError(UserError):
    """Another process of the same training has said what is wrong; this one needn't."""


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
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{shorten(str(error.filename))}: the name is too long; take a shorter one"
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
