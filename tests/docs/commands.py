"""The commands that README.md and the pages of docs/ show, and the settings that go with them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.checkouts import PROJECT

PAGES = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/*.md")])
# A comment before a block, with the reason: `<!-- not run by the tests: needs a GPU -->`.
NOT_RUN = re.compile(r"<!-- not run by the tests: .+ -->")
FENCED = re.compile(r"((?:^[^\n]*\n)?)^( *)```(\w*)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
SETTINGS = ("corpora", "datasets", "models", "defaults", "runs")
PROGRAMS = "nanogpt|snakemake|make|python3?|pip|git|cp|mkdir|export|srun|squeue|pytest|pre-commit"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. language: `bash` and so on. is_run: no comment spares it."""

    language: str
    text: str
    is_run: bool


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in its order, without their indentation."""
    found = []
    for before, indent, language, text in FENCED.findall(page.read_text(encoding="utf-8")):
        lines = (line.removeprefix(indent) for line in text.splitlines(keepends=True))
        found.append(Block(language, "".join(lines), not NOT_RUN.search(before)))
    return found


def scripts_of(page: Path) -> list[str]:
    """Return the shell commands that a test must run, block by block.

    In a block that shows output, too, these are the lines that begin with `$`.
    """
    found = []
    for block in blocks_of(page):
        if block.is_run and block.language == "bash":
            found.append(block.text)
        elif block.is_run and block.language == "console":
            found.append("\n".join(re.findall(r"^\$ (.*)$", block.text, re.MULTILINE)))
    return found


def indented_commands(page: Path) -> list[str]:
    """Return commands in indented blocks, which no test would find."""
    outside = FENCED.sub("", page.read_text(encoding="utf-8"))
    return re.findall(
        rf"^ {{4,}}(?:\$ )?((?:[A-Z_]+=\S+ )*(?:{PROGRAMS}) .*)$", outside, re.MULTILINE
    )


def settings_of(page: Path) -> dict[str, Any]:
    """Return what the page's YAML blocks add to config.yaml, later blocks over earlier ones."""
    added: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.language == "yaml" and block.is_run:
            part = yaml.safe_load(block.text)
            for key in SETTINGS:
                added[key] = {**added.get(key, {}), **part.get(key, {})}
    return added
