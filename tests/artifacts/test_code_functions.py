"""Changed functions are found by their digests, stored by code digest."""

from pathlib import Path

import pytest

from nanogpt.artifacts.code_digest import code_digest
from nanogpt.artifacts.code_functions import (
    CodeChange,
    changes,
    function_digests,
    note_functions,
    noted_functions,
)
from nanogpt.project import Project

MODULE = '''
"""A module."""
from pack.other import helper

LIMIT = 3


class Thing:
    """A thing."""

    size = 1

    def grow(self):
        """Grow."""
        return self.size + 1


def work(x):
    # a comment
    return helper(x)
'''


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A package of two modules and an adapter that imports it."""
    for name, text in {
        "pack/__init__.py": "",
        "pack/thing.py": MODULE,
        "pack/other.py": "def helper(x):\n    return x\n",
        "adapter.py": "from pack.thing import work\n\nwork(1)\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def digests(code: Path) -> dict[str, dict[str, str]]:
    return function_digests([code / "adapter.py"], code / "pack")


def edit(code: Path, path: str, old: str, new: str) -> None:
    text = (code / path).read_text()
    assert old in text
    (code / path).write_text(text.replace(old, new))


def test_each_function_method_and_rest_has_a_digest(code: Path) -> None:
    assert {module: list(functions) for module, functions in digests(code).items()} == {
        "adapter": ["module level"],
        "pack.other": ["helper"],
        "pack.thing": ["module level", "Thing.grow", "Thing", "work"],
    }


@pytest.mark.parametrize(
    ("path", "old", "new", "change"),
    [
        ("pack/thing.py", "size + 1", "size + 2", ("pack.thing", "Thing.grow", "changed")),
        ("pack/thing.py", "size = 1", "size = 2", ("pack.thing", "Thing", "changed")),
        ("pack/thing.py", "LIMIT = 3", "LIMIT = 4", ("pack.thing", "module level", "changed")),
        ("pack/other.py", "return x", "return -x", ("pack.other", "helper", "changed")),
        ("adapter.py", "work(1)", "work(2)", ("adapter", "module level", "changed")),
        ("pack/other.py", "def h", "def more():\n    pass\n\ndef h", ("pack.other", "more", "new")),
    ],
)
def test_an_edited_function_is_named(
    code: Path, path: str, old: str, new: str, change: tuple[str, str, str]
) -> None:
    before = digests(code)
    edit(code, path, old, new)
    assert changes(before, digests(code)) == [CodeChange(*change)]


def test_comments_docstrings_and_formatting_change_no_function(code: Path) -> None:
    before = digests(code)
    edit(code, "pack/thing.py", '"""Grow."""', '"""Become larger."""')
    edit(code, "pack/thing.py", "# a comment", "# another")
    edit(code, "pack/thing.py", "helper(x)", "helper(\n        x\n    )")
    assert digests(code) == before


def test_a_moved_function_is_not_changed(code: Path) -> None:
    before = digests(code)
    (code / "pack/other.py").rename(code / "pack/moved.py")
    edit(code, "pack/thing.py", "pack.other", "pack.moved")
    assert changes(before, digests(code)) == []


def test_an_edit_of_any_function_changes_the_code_digest(code: Path) -> None:
    before = code_digest(code / "adapter.py", package=code / "pack")
    edit(code, "pack/other.py", "return x", "return -x")
    assert code_digest(code / "adapter.py", package=code / "pack") != before


def test_recorded_functions_are_found_by_the_code_digest(tmp_path: Path) -> None:
    project, adapter = Project(tmp_path), tmp_path / "eval.py"
    adapter.write_text("from nanogpt.files.atomic import write_text\n")
    note_functions(project, "one", adapter)
    noted = noted_functions(project, "one")
    assert noted
    assert "write_text" in noted["nanogpt.files.atomic"]
    assert noted_functions(project, "another") is None
    adapter.write_text("x = 1\n")
    note_functions(project, "one", adapter)  # the first record stays
    assert noted_functions(project, "one") == noted


def test_a_record_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    adapter = tmp_path / "eval.py"
    adapter.write_text("import\n")
    note_functions(Project(tmp_path), "one", adapter)
    assert noted_functions(Project(tmp_path), "one") is None
