"""The application that all commands belong to, and what they share."""

import inspect
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

Function = TypeVar("Function", bound=Callable[..., object])

app = tyro.extras.SubcommandApp()

# How `nanogpt --help` lists the commands; others come after these.
ORDER = (
    *("prepare", "train", "eval", "sample", "bench", "plan", "why", "tokenize", "export"),
    *("import", "config", "verify", "cache", "report", "watch"),
)

# What the help of a command ends with.
EXAMPLES: dict[str, tuple[str, ...]] = {}


def examples(command: str, *lines: str) -> Callable[[Function], Function]:
    """A decorator: the help of a command ends with examples."""

    def decorate(function: Function) -> Function:
        EXAMPLES[command] = lines
        if function.__doc__:  # PYTHONOPTIMIZE=2 leaves none
            function.__doc__ = join_lines(function.__doc__)
        return function

    return decorate


def join_lines(doc: str) -> str:
    """A docstring with each argument on one line, as tyro keeps line breaks."""
    return re.sub(r"\n {8}(?=\S)", " ", inspect.cleandoc(doc))


def named(metavar: str) -> Any:
    """How the help shows a word that must be given, or the value of a flag."""
    return tyro.conf.arg(metavar=metavar)


def optional(metavar: str) -> Any:
    """How the help shows a word or a flag that can be left out, without a default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def run(words: list[str], description: str) -> None:
    """Run the command that these words name."""
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
    """Print a JSON value for people and programs."""
    print(json.dumps(value, indent=2))
