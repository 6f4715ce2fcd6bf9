"""The command line: `nanogpt <command>`, with flags and help from the settings.

A command calls one function of the package; torch is imported only by those that compute with it.
"""

import io
import logging
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from nanogpt.cli import (  # noqa: F401  they register commands
    artifacts,
    data,
    interchange,
    making,
    plan,
    reference,
    runs,
    why,
)
from nanogpt.cli.app import run
from nanogpt.cli.flags import name_flags, show_defaults
from nanogpt.cli.words import normalise
from nanogpt.config.messages import explain
from nanogpt.config.schema import Config
from nanogpt.errors import user_message
from nanogpt.project import let_threads_sleep, name_user

# Not taken from a docstring: PYTHONOPTIMIZE=2 leaves none.
DESCRIPTION = "The command line of nanogpt, with flags and help from the settings."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends it with one line and exit code 1."""
    words: list[str] = []
    try:
        let_threads_sleep()
        for shown in (sys.stdout, sys.stderr):
            if isinstance(shown, io.TextIOWrapper):  # what can't be shown is no mistake
                shown.reconfigure(errors="replace" if shown.isatty() else "backslashreplace")
        name_user()
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        words = normalise(sys.argv[1:] if arguments is None else arguments)
        if "--help" in words or "-h" in words:
            show_defaults(words[0])
        run(words, DESCRIPTION)
    except ValidationError as error:
        sys.exit(f"error: {explain(error, Config)}")
    except UnicodeError as error:  # in a text given on the command line or to standard input
        sys.exit(f"error: not UTF-8: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        sys.exit(f"error: {name_flags(words, message)}")
