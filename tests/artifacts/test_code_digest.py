"""The code digest changes only with edits that can change a result."""

import re
import shutil
from pathlib import Path

import pytest

from nanogpt.artifacts.code_digest import NEUTRAL, closure, code_digest
from nanogpt.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "nanogpt"
ADAPTERS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))

SOURCES = {
    "adapter": """
        from nanogpt.first import run
        from nanogpt.artifacts.stages import stage

        def later():
            from nanogpt import lazy
            return lazy.NUMBER

        run("text")
        """,
    "nanogpt/__init__": '"""The package."""',
    "nanogpt/first": '''
        """First."""
        from typing import TYPE_CHECKING

        from nanogpt.maths.second import double
        from nanogpt.maths.limits import LIMIT

        if TYPE_CHECKING:
            from nanogpt.unused import NUMBER

        MORE = 10


        def run(text: str) -> int:
            """Run."""
            return min(double(len(text)), LIMIT) + MORE
        ''',
    "nanogpt/maths/__init__": '"""Numbers."""',
    "nanogpt/maths/second": """
        from .limits import TWO
        from .. import third


        def double(n):
            return TWO * n + third.NOTHING
        """,
    "nanogpt/maths/limits": """
        LIMIT = 10
        TWO = 2
        """,
    "nanogpt/third": """
        from nanogpt.artifacts.stages import SETTING

        NOTHING = 0
        """,
    "nanogpt/lazy": "NUMBER = 1\n",
    "nanogpt/unused": "NUMBER = 3\n",
    "nanogpt/artifacts/__init__": '"""Artifacts."""',
    "nanogpt/artifacts/stages": "SETTING = 1\n",
}


def dedent(source):
    lines = source.strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "".join(line[margin:] + "\n" for line in lines)


class Code:
    """A small package and an adapter that imports it."""

    def __init__(self, directory):
        self.directory = directory
        for name, source in SOURCES.items():
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(source))

    def path(self, name):
        return self.directory / f"{name}.py"

    def edit(self, name, old, new):
        source = self.path(name).read_text()
        assert old in source
        self.path(name).write_text(source.replace(old, new))

    def digest(self, command=""):
        return code_digest(self.path("adapter"), command, self.directory / "nanogpt")

    def closure(self):
        return closure(self.path("adapter"), self.directory / "nanogpt")


@pytest.fixture
def code(tmp_path):
    return Code(tmp_path)


INVISIBLE = {
    "a comment": ("first", "MORE = 10", "MORE = 10  # at most\n# another line"),
    "a module's docstring": ("first", '"""First."""', '"""Another."""'),
    "a new module docstring": ("third", "from nanogpt", '"""New."""\nfrom nanogpt'),
    "a function's docstring": ("first", '"""Run."""', '"""Run it."""'),
    "no docstring": ("first", '    """Run."""\n', ""),
    "a package's docstring": ("maths/__init__", "Numbers", "Numbers and more"),
    "blank lines": ("first", "\n\n\n", "\n"),
    "spaces": ("maths/second", "TWO * n", "TWO*n"),
    "a broken line": ("maths/second", "TWO * n + ", "(\n        TWO\n * n) + "),
    "another way to write a number": ("first", "MORE = 10", "MORE = 0xA"),
    "the adapter's comment": ("../adapter", 'run("text")', 'run("text")  # now'),
    "other quotes": ("../adapter", '"text"', "'text'"),
    "the order of imports": (
        "first",
        "from nanogpt.maths.second import double\nfrom nanogpt.maths.limits import LIMIT",
        "from nanogpt.maths.limits import LIMIT\nfrom nanogpt.maths.second import double",
    ),
    "an absolute import instead of a relative one": (
        "maths/second",
        "from .limits import TWO",
        "from nanogpt.maths.limits import TWO",
    ),
    "a name bound to itself": ("maths/second", "import TWO", "import TWO as TWO"),
    "imports for type checkers": ("first", "import NUMBER", "import NUMBER as OTHER"),
    "an import for type checkers only": ("unused", "NUMBER = 3", "NUMBER = 2"),
    "a late import of a neutral module": (
        "artifacts/stages",
        "SETTING = 1",
        "def late():\n    import nanogpt.unused\n\n\nSETTING = 1",
    ),
    "a neutral module": ("artifacts/stages", "SETTING = 1", "SETTING = 2"),
}


@pytest.mark.parametrize(("name", "old", "new"), INVISIBLE.values(), ids=INVISIBLE.keys())
def test_edits_without_effect_do_not_change_the_digest(code, name, old, new):
    before = code.digest()
    code.edit(f"nanogpt/{name}", old, new)
    assert code.digest() == before


VISIBLE = {
    "a constant": ("first", "MORE = 10", "MORE = 11"),
    "a constant's type": ("first", "MORE = 10", "MORE = 10.0"),
    "an operator": ("maths/second", "TWO * n", "TWO - n"),
    "a module in a package, two imports away": ("maths/limits", "TWO = 2", "TWO = 3"),
    "a module imported by a relative path": ("third", "NOTHING = 0", "NOTHING = 1"),
    "a module imported in a function": ("lazy", "NUMBER = 1", "NUMBER = 2"),
    "a new import": ("third", "NOTHING = 0", "import nanogpt.unused\nNOTHING = 0"),
    "code in a package's __init__": ("maths/__init__", "Numbers", 'Numbers"""\nX = """'),
    "code in the package's __init__": ("maths/limits", "TWO", "from nanogpt.lazy import X\nTWO"),
    "another module's name": ("../adapter", "import lazy", "import unused as lazy"),
    "another name": ("maths/second", "import TWO", "import LIMIT as TWO"),
    "another bound name": ("maths/second", "import TWO", "import TWO as LIMIT"),
    "the other branch of a block for type checkers": (
        "first",
        "import NUMBER\n",
        "import NUMBER\nelse:\n    NUMBER = 2\n",
    ),
    "a module loaded by a neutral one": (
        "artifacts/stages",
        "SETTING",
        "import nanogpt.unused\nSETTING",
    ),
    "a module loaded by a neutral one in a block": (
        "artifacts/stages",
        "SETTING",
        "class Late:\n    try:\n        import nanogpt.unused\n    except ImportError:\n"
        "        pass\nSETTING",
    ),
    "code in a neutral module's package": ("artifacts/__init__", "Artifacts", 'A"""\nX = """'),
    "the adapter": ("../adapter", '"text"', '"texts"'),
    "a string that isn't a docstring": ("third", "NOTHING = 0", "NOTHING = 0\n'a statement'"),
    "a default": ("maths/second", "double(n)", "double(n=None)"),
    "a keyword-only argument": ("maths/second", "double(n)", "double(*, n)"),
    "a return of nothing": ("first", "return min", "return None\n    min"),
}


@pytest.mark.parametrize(("name", "old", "new"), VISIBLE.values(), ids=VISIBLE.keys())
def test_edits_of_the_code_change_the_digest(code, name, old, new):
    before = code.digest()
    code.edit(f"nanogpt/{name}", old, new)
    assert code.digest() != before


def test_a_changed_command_changes_the_digest(code):
    assert len({code.digest(), code.digest("python train.py"), code.digest("srun train.py")}) == 3


def test_a_module_that_nobody_imports_is_not_in_the_digest(code):
    before = code.digest()
    code.edit("nanogpt/unused", "3", "2")
    assert code.digest() == before


def test_a_moved_module_keeps_the_digest(code):
    before = code.digest()
    package = code.directory / "nanogpt/deep/deeper"
    package.mkdir(parents=True)
    for directory in (package, package.parent):
        (directory / "__init__.py").write_text('"""A package."""\n')
    code.path("nanogpt/maths/limits").rename(package / "bounds.py")
    code.edit("nanogpt/first", "nanogpt.maths.limits", "nanogpt.deep.deeper.bounds")
    code.edit("nanogpt/maths/second", ".limits", "nanogpt.deep.deeper.bounds")
    assert code.digest() == before


def test_an_import_of_the_same_name_from_another_module_changes_the_digest(code):
    before = code.digest()
    code.path("nanogpt/other").write_text("TWO = 2\n")
    code.edit("nanogpt/maths/second", "from .limits import", "from nanogpt.other import")
    assert code.digest() != before


def test_files_in_the_directory_of_a_module_that_uses_them_are_in_the_digest(code):
    code.edit("nanogpt/maths/second", "def double", "HERE = __file__\n\n\ndef double")
    before = code.digest()
    template = code.directory / "nanogpt/maths/templates/page.html"
    template.parent.mkdir()
    template.write_text("a page")
    with_template = code.digest()
    assert with_template != before
    template.write_text("another page")
    assert code.digest() != with_template


def test_the_location_of_the_code_is_not_in_the_digest(code, tmp_path):
    shutil.copytree(tmp_path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    assert Code(tmp_path / "elsewhere").digest() == code.digest()


def test_the_closure_includes_packages_and_neutral_modules(code):
    assert code.closure() == {
        "nanogpt",
        "nanogpt.artifacts",
        "nanogpt.artifacts.stages",
        "nanogpt.first",
        "nanogpt.lazy",
        "nanogpt.maths",
        "nanogpt.maths.limits",
        "nanogpt.maths.second",
        "nanogpt.third",
    }


UNRESOLVABLE = {
    "a module that isn't there": ("import nanogpt.nowhere", "no module nanogpt.nowhere in"),
    "a module of a package": ("from nanogpt.maths.none import X", "no module nanogpt.maths.none"),
    "too many dots": ("from ...far import X", "a relative import that leaves nanogpt"),
    "a computed import": ("import importlib as i\ni.import_module('x')", "a computed import"),
    "an imported function that imports": (
        "from importlib import import_module as load",
        "a computed import",
    ),
    "Python's own function": ("X = __import__", "a computed import"),
    "a module run by its name": ("import runpy", "a computed import"),
    "a file found by its package": ("from importlib.resources import files", "a computed import"),
    "code in a string": ("exec('import nanogpt.unused')", "a computed import"),
    "all names of a package": ("from nanogpt.maths import *", "import *"),
    "a package's directory": ("import nanogpt\nnanogpt.__path__", "a computed import"),
    "a module next to the package": ("import beside", "doesn't see it"),
    "a syntax error": ("def f(:", "invalid syntax"),
    "a circle": ("from nanogpt.first import MORE", "nanogpt.third -> nanogpt.first"),
}


@pytest.mark.parametrize(("statement", "named"), UNRESOLVABLE.values(), ids=UNRESOLVABLE.keys())
def test_an_import_that_cannot_be_resolved_is_an_error(code, statement, named):
    (code.directory / "beside.py").write_text("NUMBER = 1\n")
    code.edit("nanogpt/third", "NOTHING = 0", f"NOTHING = 0\n{statement}")
    with pytest.raises(UserError, match=re.escape(named)) as error:
        code.digest()
    assert re.search(r"\.py: line \d+: ", str(error.value))
    assert len(str(error.value).splitlines()) == 1


def test_a_module_in_another_encoding_is_an_error(code):
    code.path("nanogpt/third").write_bytes("NOTHING = 0  # \xe4\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"third\.py: line 1: .*correct it"):
        code.digest()
    code.path("nanogpt/third").write_bytes(b"# coding: latin-1\nNOTHING = 0  # \xe4\n")
    assert code.digest()


def test_a_module_next_to_an_adapter_is_an_error(code):
    code.path("adapter").with_name("helper.py").write_text("X = 1\n")
    code.edit("adapter", 'run("text")', "import helper\nrun('text')")
    with pytest.raises(UserError, match=r"helper is in .*doesn't see it"):
        code.digest()


def test_installed_packages_are_not_part_of_the_project(code):
    (code.directory / "beside.py").write_text("NUMBER = 1\n")
    code.edit("nanogpt/third", "NOTHING = 0", "NOTHING = 0\nimport beside")
    (code.directory / "nanogpt-1.0.0.dist-info").mkdir()
    installed = code.digest()
    (code.directory / "beside.py").unlink()
    (code.directory / "nanogpt-1.0.0.dist-info").rmdir()
    assert code.digest() == installed, "of the same code in a checkout"


def test_a_relative_import_in_an_adapter_is_an_error(code):
    code.edit("adapter", 'run("text")', "from . import helpers")
    with pytest.raises(UserError, match="leaves nanogpt"):
        code.digest()


# --- This package ---------------------------------------------------------------------------


def test_every_import_of_this_project_can_be_resolved():
    assert len({code_digest(adapter) for adapter in ADAPTERS}) == len(ADAPTERS)


def test_every_neutral_module_exists_and_has_a_reason():
    for module, reason in NEUTRAL.items():
        below = PACKAGE.joinpath(*module.split(".")[1:])
        assert below.with_name(f"{below.name}.py").exists() or (below / "__init__.py").exists()
        assert reason


# Differences between the syntax trees of Python 3.11, 3.12 and 3.13: type parameters, empty lists,
# omitted fields; and f-strings, which can be parsed in two ways.
SAME_EVERYWHERE = '''
from __future__ import annotations
import dataclasses as d
from collections.abc import Callable


@d.dataclass(frozen=True)
class Point(tuple, metaclass=type):
    """A point."""

    x: int = 0
    y: "float | None" = None


def f(a, /, b: int = 1, *args: str, c=None, d: list[int] | None = None, **more) -> dict[str, int]:
    """Docstring."""
    text = f"{a!r:>{b}} and {c=} {{x}} {a:.2f}" "tail" f'{more["x"]}'
    if (n := len(args)) > 1 and not d:
        return {**more, "n": n}
    match more:
        case {"x": 1 | 2, **rest} if rest:
            pass
        case [1, *_, None] | Point(x=0):
            return None
        case _:
            return
    try:
        del text[1:2, ::3], text[:]
    except* (ValueError, OSError) as error:
        raise KeyError from error
    with open(a) as file, open(b):
        print(*file, sep="")
    return [x async for x in a] if n else (lambda x=None, *, y=2: x + y)(1)


async def g():
    async with f as h:
        yield await h, 1_000, 1e-3, 2j, b"bytes", "é\\n", ..., True, -1


def empty(): ...
'''
SAME_EVERYWHERE_DIGEST = "b163642a2446c1613f19ad280085ee069d47a7b99735de52f594b17153d8a614"


def test_the_digest_of_a_source_is_the_same_on_every_python(code):
    (code.directory / "source.py").write_text(SAME_EVERYWHERE, encoding="utf-8")
    digest = code_digest(code.directory / "source.py", "command", code.directory / "nanogpt")
    assert digest == SAME_EVERYWHERE_DIGEST
