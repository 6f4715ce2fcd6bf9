"""docs/COMING-FROM-NANOGPT.md: every command that it shows runs, in its order, with tiny models."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.checkouts import MIRROR, PROJECT, own_environment
from tests.docs.shrunk import TEXT, shrunk_checkout

PAGE = (PROJECT / "docs/COMING-FROM-NANOGPT.md").read_text(encoding="utf-8")


def commands():
    """The commands of the column "here" of each table, in the order of the page."""
    tables = re.findall(r"^\| there \| here \|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    cells = [row.split("|")[-2] for table in tables for row in table.splitlines()]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    return [span for span in spans if span.startswith("nanogpt ")]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A checkout with the shipped runs, shrunk, and a text beside it."""
    project = shrunk_checkout(tmp_path_factory.mktemp("newcomer"))
    (project.parent / "novel.txt").write_text(TEXT.replace("no", "n\xf3"), encoding="cp1252")
    (project / "prompt.txt").write_text("The old")
    (project / "small.json").write_text('{"max_iters": 40, "batch_size": 4}')
    return project


def test_the_page_shows_commands_of_each_kind():
    words = {shlex.split(command)[1] for command in commands()}
    assert {"prepare", "train", "eval", "sample", "bench"} <= words
    assert len(commands()) > 20


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_runs(newcomer, command):
    if "models/gpt2" in command and not MIRROR:
        pytest.skip("NANOGPT_MIRROR is not set: GPT-2's merges aren't here")
    ended = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=newcomer,
        env=own_environment(NANOGPT_MIRROR=str(newcomer.parent / "mirror")),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "error:" not in ended.stderr
    assert ended.stdout
