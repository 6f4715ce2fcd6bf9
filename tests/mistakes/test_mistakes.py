"""Each mistake is reported in one line, and docs/ERRORS.md lists them all."""

import pickle
import re

import pytest

from nanogpt.errors import UserError
from tests.mistakes.base import EXECUTED, ROOT, Mistake
from tests.mistakes.models import Bomb
from tests.mistakes.page import AREAS, page

MISTAKES = [mistake for mistakes in AREAS.values() for mistake in mistakes]


def message_of(mistake: Mistake) -> str:
    """Make a mistake; return the line that a user sees, without `error: `."""
    try:
        printed = mistake.make()
    except UserError as error:
        return str(error)
    except SystemExit as end:
        # A string means exit code 1.
        return re.fullmatch("error: (.*)", end.code)[1]
    assert isinstance(printed, str), "no error was reported"
    return printed


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.title for mistake in MISTAKES])
def test_a_mistake_is_reported_in_one_line_and_executes_nothing(
    mistake, tmp_path, monkeypatch, capsys
):
    if mistake.is_impossible():
        pytest.skip("this machine can't make this mistake")
    monkeypatch.chdir(tmp_path)
    message = re.sub(r"127\.0\.0\.1:\d+", "HOST", message_of(mistake))
    assert message == mistake.message
    assert len(message.splitlines()) == 1
    assert capsys.readouterr().err == ""
    assert not EXECUTED.exists()


def test_unpickling_the_bomb_would_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert EXECUTED.exists()


def test_there_are_many_mistakes_with_unique_titles():
    titles = [mistake.title for mistake in MISTAKES]
    assert len(titles) >= 200
    assert len(set(titles)) == len(titles)


def test_docs_errors_md_is_up_to_date():
    hint = "run `make format`"
    assert (ROOT / "docs/ERRORS.md").read_text(encoding="utf-8") == page(), hint


def test_every_row_of_the_page_has_two_cells():
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert len(rows) == len(MISTAKES) + 2 * len(AREAS)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
