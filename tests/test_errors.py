"""Each mistake of the table gets its one line, and the page of errors has them all."""

import pickle
import re
from pathlib import Path

import pytest

from nanogpt.errors import UserError, plural
from tests.errors import EXECUTED, KINDS, Bomb, Mistake, page

ROOT = Path(__file__).resolve().parent.parent

MISTAKES = [mistake for mistakes in KINDS.values() for mistake in mistakes]


def said_of(mistake: Mistake) -> str:
    """What a user sees who makes a mistake, without `error: `."""
    try:
        printed = mistake.make()
    except UserError as error:
        return str(error)
    except SystemExit as ended:
        # A string makes exit code 1.
        return re.fullmatch("error: (.*)", ended.code)[1]
    assert isinstance(printed, str), "nothing was found to be wrong"
    return printed


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.title for mistake in MISTAKES])
def test_a_mistake_gets_its_one_line_and_executes_nothing(mistake, tmp_path, monkeypatch, capsys):
    if mistake.impossible():
        pytest.skip("this machine cannot make this mistake")
    monkeypatch.chdir(tmp_path)
    said = re.sub(r"127\.0\.0\.1:\d+", "HOST", said_of(mistake))
    assert said == mistake.message
    assert len(said.splitlines()) == 1
    assert capsys.readouterr().err == ""
    assert not EXECUTED.exists()


def test_the_bomb_among_the_mistakes_would_go_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert EXECUTED.exists()


def test_there_are_many_mistakes_and_no_two_have_one_title():
    titles = [mistake.title for mistake in MISTAKES]
    assert len(titles) >= 60
    assert len(set(titles)) == len(titles)


def test_the_page_of_errors_is_what_the_table_gives():
    assert (ROOT / "docs/ERRORS.md").read_text(encoding="utf-8") == page()


def test_every_row_of_the_page_has_two_cells():
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert len(rows) == len(MISTAKES) + 2 * len(KINDS)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)


def test_numbers_take_the_plural_but_for_one():
    assert [plural(number, "token") for number in (0, 1, 2, 2000)] == [
        "0 tokens",
        "1 token",
        "2 tokens",
        "2,000 tokens",
    ]
