"""Digests of each function in a stage's code, so that `nanogpt why` can name the changed ones.

The code digest (code_digest.py) shows that code changed, but not where. So each job also stores
the digests of its functions in `.nanogpt/code/`, in a file named after the code digest. No result
depends on these files.
"""

import ast
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt.artifacts.code_digest import FUNCTIONS, Dumper, parse_source, sources
from nanogpt.errors import UserError
from nanogpt.project import Project

logger = logging.getLogger(__name__)

# Stages whose code has several adapters: a dataset is made by one job or by many.
ADAPTERS = {"prepare": ("count", "plan", "encode", "prepare")}

# The statements of a module outside functions and classes.
MODULE_LEVEL = "module level"


@dataclass(frozen=True)
class CodeChange:
    """A function or another part of a module that differs. how: changed, new or gone."""

    module: str
    function: str
    how: str

    def __str__(self) -> str:
        return f"{self.module}: {self.function} {'is ' if self.how != 'changed' else ''}{self.how}"


def adapters_of(stage: str) -> tuple[str, ...]:
    """The names of the adapters that make up a stage's code, in order."""
    return ADAPTERS.get(stage, (stage,))


def note_functions(project: Project, code: str, adapter: Path) -> None:
    """Store the digests of the functions that a job runs, by its code digest.

    adapter: the running script. If the file can't be written, that's logged, and the job continues.
    """
    # Imported late because a dry run only needs `adapters_of` and reads no records.
    from nanogpt.artifacts.records.base import write_record
    from nanogpt.artifacts.records.manifests import CodeFunctions

    path = _path(project, code)
    if not code or path.exists():
        return
    stage = adapter.stem
    scripts = [adapter.with_name(f"{name}.py") for name in adapters_of(stage)]
    try:
        found = function_digests(script for script in scripts if script.is_file())
        write_record(path, CodeFunctions(code=code, modules=found))
    except (UserError, OSError) as error:
        logger.info("%s: not written: %s", path, error)


def noted_functions(project: Project, code: str) -> dict[str, dict[str, str]] | None:
    """Load the digests stored for a code digest, by module and function; None if there aren't any.

    Unreadable files count as missing.
    """
    # Imported late because a dry run only needs `adapters_of` and reads no records.
    from nanogpt.artifacts.records.base import read_record
    from nanogpt.artifacts.records.manifests import CodeFunctions

    try:
        noted = read_record(_path(project, code), CodeFunctions)
    except UserError:
        return None
    return noted.modules if noted.code == code else None


def function_digests(
    adapters: Iterable[Path], package: Path | None = None
) -> dict[str, dict[str, str]]:
    """The digest of each function that the adapters can run, by module and name.

    A method is `Class.method`. The rest of a class has the class's name, and the rest of a module
    is MODULE_LEVEL. As in the code digest, comments, formatting and docstrings are ignored.
    """
    found: dict[str, dict[str, str]] = {}
    for adapter in adapters:
        for module, path in sources(adapter, package).items():
            if module not in found:
                digests = dict(_digests(path, package.name if package else "nanogpt"))
                if digests:  # otherwise it's only a docstring
                    found[module] = digests
    return found


def changes(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> list[CodeChange]:
    """The functions that differ, sorted by module. A function that only moved doesn't differ."""
    old = _flat(before)
    new = _flat(now)
    changed = [key for key in old if key in new and old[key] != new[key]]
    gone = [key for key in old if key not in new]
    added = [key for key in new if key not in old]
    # A moved function keeps its name and digest.
    moved = {(name, old[module, name]) for module, name in gone}
    moved &= {(name, new[module, name]) for module, name in added}
    found = [CodeChange(module, name, "changed") for module, name in changed]
    found += [CodeChange(*key, "gone") for key in gone if (key[1], old[key]) not in moved]
    found += [CodeChange(*key, "new") for key in added if (key[1], new[key]) not in moved]
    return sorted(found, key=lambda change: (change.module, change.how, change.function))


def _flat(modules: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], str]:
    return {
        (m, name): digest for m, functions in modules.items() for name, digest in functions.items()
    }


def _path(project: Project, code: str) -> Path:
    return project.code / f"{_digest(code)}.json"


def _digests(path: Path, root: str) -> Iterator[tuple[str, str]]:
    """The digests of a file's functions, by their names."""
    parts: dict[str, list[ast.stmt]] = {}
    _collect(parse_source(path.read_bytes(), str(path)).body, "", parts)
    for name, statements in parts.items():
        dumper = Dumper(root, str(path))
        text = dumper.dump(statements)
        # Without the names of modules, which may have moved.
        imported = sorted((one.name, one.bound) for group in dumper.groups for one in group)
        if text != "[]":
            yield name, _digest(text + repr(imported))


def _collect(body: Sequence[ast.stmt], outer: str, parts: dict[str, list[ast.stmt]]) -> None:
    """Group the statements of a module or class by function."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            _collect(node.body, f"{outer}{node.name}.", parts)
            rest = [one for one in node.body if not isinstance(one, (*FUNCTIONS, ast.ClassDef))]
            header = ast.ClassDef(
                name=node.name,
                bases=node.bases,
                keywords=node.keywords,
                body=[*rest, ast.Pass()] if _is_docstring(rest[:1]) or not rest else rest,
                decorator_list=node.decorator_list,
            )
            parts.setdefault(f"{outer}{node.name}", []).append(header)
        elif isinstance(node, FUNCTIONS):
            parts.setdefault(f"{outer}{node.name}", []).append(node)
        elif not outer and not _is_docstring([node]):
            parts.setdefault(MODULE_LEVEL, []).append(node)


def _is_docstring(nodes: Sequence[ast.stmt]) -> bool:
    return bool(
        nodes
        and isinstance(nodes[0], ast.Expr)
        and isinstance(nodes[0].value, ast.Constant)
        and isinstance(nodes[0].value.value, str)
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
