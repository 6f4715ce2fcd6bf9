"""A user's mistake with its error line, and helpers to make mistakes.

Each mistake is made for real: in an empty directory, with real files, and with the function or
command that a user would run.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nanogpt.cli.main import main

ROOT = Path(__file__).resolve().parents[2]

# The file that code inside a hostile file would create. No mistake may execute such code.
EXECUTED = Path("executed")

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen.\n" * 4

# A config.yaml with one run.
CONFIG = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
models: {tiny: {n_layer: 1, n_head: 2, n_embd: 4, block_size: 8}}
runs: {first: {dataset: letters}}
"""

# A Latin-1 é on a command line, in bash's notation.
NOT_UTF8 = r"$'caf\xe9'"


@dataclass(frozen=True)
class Mistake:
    """A mistake and its message.

    title: in a few words. shown: how a user makes it, in Markdown. make: makes it, in an
    empty current directory, and raises UserError or SystemExit or returns the printed line.
    message: that line, without `error: `; HOST stands for a server's name and port.
    is_impossible: whether it can't be made on this machine.
    """

    title: str
    shown: str
    make: Callable[[], object]
    message: str
    is_impossible: Callable[[], bool] = lambda: False


def code(text: str) -> str:
    """Format code for a cell of a Markdown table."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def write_files(contents: Mapping[str, bytes | str]) -> None:
    """Write files by path, and create their directories."""
    for name, content in contents.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def in_turn(*steps: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls these functions one after another."""

    def make() -> None:
        for step in steps:
            step()

    return make


def command(
    title: str,
    line: str,
    message: str,
    before: Callable[[], object] = lambda: None,
    is_impossible: Callable[[], bool] = lambda: False,
) -> Mistake:
    """Return the mistake of running a command. before: creates the files that it finds."""

    def make() -> None:
        before()
        main(shlex.split(line.replace(NOT_UTF8, "caf\udce9")))

    return Mistake(title, code(f"nanogpt {line}"), make, message, is_impossible)


def workflow(title: str, shown: str, target: str, message: str, *files: str) -> Mistake:
    """Return a mistake that stops the workflow before any job. files: texts of corpus `book`."""

    def make() -> None:
        config = "{corpora: {book: {files: texts}}, datasets: {book: {}}}"
        write_files({"config.yaml": config, **dict.fromkeys(files, TEXT)})
        run = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"),
                *("--cores", "1", "--dry-run", target),
            ],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 1
        assert "Traceback" not in run.stderr
        sys.exit(next(line for line in run.stderr.splitlines() if line.startswith("error: ")))

    return Mistake(title, shown, make, message)
