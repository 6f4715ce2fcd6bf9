"""The command line: `nanogpt <command>`, with flags and help from the settings.

Each command calls a function of the package. Only commands that compute import torch.
"""

import io
import logging
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from nanogpt.cli import (  # noqa: F401  these register commands
    artifacts,
    data,
    interchange,
    making,
    plan,
    reference,
    runs,
    serve,
    why,
)
from nanogpt.cli.app import run
from nanogpt.cli.flags import name_flags, show_defaults
from nanogpt.cli.words import normalise
from nanogpt.config.messages import explain
from nanogpt.config.schema import Config
from nanogpt.errors import user_message
from nanogpt.project import let_threads_sleep, name_user

# Not a docstring, since PYTHONOPTIMIZE=2 removes those.
DESCRIPTION = "Train GPTs on your own text, sample from them, and check how they were made."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. A user's mistake ends it with one line and exit code 1."""
    words: list[str] = []
    try:
        let_threads_sleep()
        for shown in (sys.stdout, sys.stderr):
            if isinstance(
                shown, io.TextIOWrapper
            ):  # a character that can't be shown isn't an error
                shown.reconfigure(errors="replace" if shown.isatty() else "backslashreplace")
        name_user()
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        words = normalise(sys.argv[1:] if arguments is None else arguments)
        if "--help" in words or "-h" in words:
            show_defaults(words[0])
        run(words, DESCRIPTION)
    except ValidationError as error:
        sys.exit(f"error: {explain(error, Config)}")
    except UnicodeError:  # in a text on the command line or from standard input
        sys.exit("error: the text isn't valid UTF-8; convert it to UTF-8")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        sys.exit(f"error: {name_flags(words, message)}")
