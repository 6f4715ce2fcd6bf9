"""The command-line application, and helpers that all commands share."""

import inspect
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

Function = TypeVar("Function", bound=Callable[..., object])

app = tyro.extras.SubcommandApp()

# Order of the commands in `nanogpt --help`; the others come after these.
ORDER = (
    *("prepare", "train", "eval", "sample", "bench", "plan", "why", "tokenize", "export"),
    *("import", "config", "verify", "cache", "report", "watch", "serve"),
)

# Examples at the end of a command's help.
EXAMPLES: dict[str, tuple[str, ...]] = {}


def examples(command: str, *lines: str) -> Callable[[Function], Function]:
    """Decorate a command to show examples at the end of its help."""

    def decorate(function: Function) -> Function:
        EXAMPLES[command] = lines
        if function.__doc__:  # PYTHONOPTIMIZE=2 removes docstrings
            function.__doc__ = join_lines(function.__doc__)
        return function

    return decorate


def join_lines(doc: str) -> str:
    """Put each argument of a docstring on one line, since tyro keeps line breaks."""
    return re.sub(r"\n {8}(?=\S)", " ", inspect.cleandoc(doc))


def named(metavar: str) -> Any:
    """Set the name of a required argument, or of a flag's value, in the help."""
    return tyro.conf.arg(metavar=metavar)


def optional(metavar: str) -> Any:
    """Set the name of an optional argument or flag in the help, without showing a default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def run(words: list[str], description: str) -> None:
    """Run a command line. words: the command and its arguments."""
    commands = app._subcommands
    for name in [*ORDER, *(name for name in list(commands) if name not in ORDER)]:
        if name in commands:
            commands[name] = commands.pop(name)
    try:
        app.cli(prog="nanogpt", description=description, args=words)
    except SystemExit:
        if words and {"--help", "-h"} & set(words) and words[0] in EXAMPLES:
            print("examples:", *EXAMPLES[words[0]], sep="\n  ")
        raise


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))
