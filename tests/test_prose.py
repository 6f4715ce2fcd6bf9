"""`make lint` finds stale phrases, long lines and clause headings, and spares what's fine."""

import pytest

from tests.prose import problems_of


@pytest.mark.parametrize(
    ("path", "line", "problem"),
    [
        ("docs/DATA.md", "The file shall be read.", "`shall`; write: will, must"),
        ("nanogpt/a.py", "# Begun Anew after a stop.", "`Anew`; write: again, from scratch"),
        ("nanogpt/a.py", 'raise UserError("`x y` is no name")', "`is no`; write: isn't a"),
        ("docs/DATA.md", "## What it costs", "a heading that is a clause"),
        ("docs/DATA.md", "word " * 21, "105 columns of prose"),
        ("nanogpt/a.py", "    # " + "word " * 20, "106 columns of prose"),
    ],
)
def test_problem_is_reported_with_its_line(path: str, line: str, problem: str) -> None:
    found = list(problems_of(path, f"fine\n{line}\n"))
    assert len(found) == 1
    assert found[0].startswith(f"{path}:2: ")
    assert problem in found[0]


@pytest.mark.parametrize(
    "line",
    [
        "Once upon a time there was a marshal.",
        "It's no longer read; when it comes to speed, use `top_k`.",
        "| a row | " + "word " * 30 + "|",
        "    indented code " + "word " * 30,
        "[link](https://example.org/" + "x" * 120 + ")",
        "```\n# What is a comment of a code block\n```",
    ],
)
def test_fine_lines_pass(line: str) -> None:
    assert list(problems_of("docs/DATA.md", line)) == []
