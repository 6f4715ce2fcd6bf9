"""Code edits that the code digest can't follow."""

from collections.abc import Callable
from pathlib import Path

from nanogpt.artifacts.code_digest import code_digest
from tests.mistakes.base import Mistake, code, write_files


def digest_of(statement: str) -> Callable[[], None]:
    """A function that computes the code digest of an adapter with this statement."""

    def make() -> None:
        write_files({"workflow/scripts/eval.py": statement, "nanogpt/__init__.py": ""})
        code_digest(Path("workflow/scripts/eval.py"), package=Path("nanogpt"))

    return make


def edit(title: str, statement: str, message: str) -> Mistake:
    """A statement in `workflow/scripts/eval.py` that's rejected when Snakemake plans its jobs."""
    return Mistake(title, code(statement), digest_of(statement), message)


EDITS = [
    edit(
        "an import of a module that isn't there",
        "import nanogpt.nowhere",
        "workflow/scripts/eval.py: line 1: no module nanogpt.nowhere in nanogpt; correct the "
        "import",
    ),
    edit(
        "a computed import",
        "module = __import__(name)",
        "workflow/scripts/eval.py: line 1: a computed import, which the code digest can't "
        "follow; use an import statement (inside a function if it must run late), and find "
        "files with `__file__`",
    ),
]
