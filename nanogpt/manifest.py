"""Manifests: what a stage was asked for, from what, with which code, and what came of it.

`version` names what was asked for; `verify` holds a manifest against the files. Who runs a stage,
and what the stage does, is left to others.
"""

import ast
import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nanogpt import __version__
from nanogpt.files import read_json, sha256_file

PACKAGE = Path(__file__).parent

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Their effect on a stage arrives as its parameters.
NOT_HASHED = {"config", "manifest", "cli", "stage", "cache", "lock", "signals", "state", "storage"}


def code_digest(adapter: Path, command: str = "") -> str:
    """The digest, 64 hex digits, of the code that a stage runs.

    It covers the adapter, the command of its rule and the modules of this package that they import,
    directly or not. Comments, formatting and docstrings do not count.
    """
    parts = [command]
    seen: set[str] = set()
    waiting = [adapter]
    while waiting:
        dump, imported = _parse(waiting.pop().read_text(encoding="utf-8"))
        parts.append(dump)
        for name in sorted(_our_modules(imported) - seen):
            seen.add(name)
            waiting.append(PACKAGE / f"{name}.py")
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


# A dry run asks for the digests of many stages, which share most of their modules.
@cache
def _parse(source: str) -> tuple[str, frozenset[str]]:
    """A module's syntax tree as text, and the dotted names that it imports anywhere."""
    tree = ast.parse(source)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            names |= {f"{PACKAGE.name}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return _dump(tree), frozenset(names)


def _our_modules(imported: frozenset[str]) -> set[str]:
    modules = {name.split(".")[1] for name in imported if name.startswith(f"{PACKAGE.name}.")}
    return {name for name in modules - NOT_HASHED if (PACKAGE / f"{name}.py").exists()}


def _dump(node: Any) -> str:
    """A syntax tree as text, the same on every Python version (ast.dump is not)."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        if isinstance(node, ast.JoinedStr):
            # Python 3.12 puts an empty string after a nested field of a format.
            values = [part for part in node.values if getattr(part, "value", None) != ""]
            fields = [("values", values)]
        return f"{type(node).__name__}({','.join(f'{n}={_dump(v)}' for n, v in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    return repr(node)


def version(stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, str], code: str) -> str:
    """The name of what was asked for: 12 hex digits.

    inputs: sha256 by path, in the rule's order. Only file names count, so that runs may be renamed.
    """
    named = [(Path(path).name, digest) for path, digest in inputs.items()]
    asked = json.dumps([stage, parameters, named, code], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:12]


def digests(paths: Iterable[str]) -> dict[str, str]:
    """The sha256 of each file, by path, in the order of the paths."""
    return {path: sha256_file(path) for path in paths}


def environment(threads: int) -> dict[str, Any]:
    """What touches the last bits of a result without being asked for."""
    described: dict[str, Any] = {
        "nanogpt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": threads,
        "ranks": 1,
    }
    # A stage that computes without torch does not pay for its import here.
    torch = sys.modules.get("torch")
    if torch is not None:
        described["torch"] = torch.__version__
        described["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        described["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return described


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Problem:
    """A file that is not what a manifest says."""

    path: str
    problem: str
    manifest: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def find_manifests(paths: Sequence[Path]) -> list[Path]:
    """The manifests at or below some paths, and those of their inputs, and so on."""
    waiting: list[Path] = []
    makers: dict[Path, dict[str, list[Path]]] = {}  # by directory and output
    for path in paths:
        waiting += [path] if path.is_file() else sorted(path.rglob("*.manifest.json"))
    found: dict[Path, None] = {}
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        found[path] = None
        said = _read(path)
        if said:
            for made in said["inputs"]:
                # A stage's manifest lies beside its outputs, or one directory up.
                for directory in (Path(made).parent, Path(made).parent.parent):
                    if directory not in makers:
                        makers[directory] = _makers(directory)
                    waiting += makers[directory].get(made, [])
    return list(found)


def _makers(directory: Path) -> dict[str, list[Path]]:
    """The manifests in a directory, by the outputs that they name."""
    makers: dict[str, list[Path]] = {}
    for path in sorted(directory.glob("*.manifest.json")):
        for output in (_read(path) or {"outputs": {}})["outputs"]:
            makers.setdefault(output, []).append(path)
    return makers


def _read(manifest: Path) -> dict[str, Any] | None:
    """What a manifest says, None if it is none."""
    try:
        said: dict[str, Any] = read_json(manifest)
        version(said["stage"], said["parameters"], said["inputs"], said["code"])
        texts = [said["version"]]
        for kind in ("inputs", "outputs"):
            texts += [*said[kind].keys(), *said[kind].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return said if all(isinstance(text, str) for text in texts) else None


def verify(manifest: Path, digests: dict[str, str] | None = None) -> list[Problem]:
    """What is wrong with the files that a manifest names; nothing if all is well.

    digests: of files that were read already, by path; those that are read here are added. Paths
    are relative to the working directory, which must be the project's.
    """
    said = _read(manifest)
    if said is None:
        return [Problem(str(manifest), "cannot be read as a manifest", str(manifest))]
    asked = version(said["stage"], said["parameters"], said["inputs"], said["code"])
    if asked != said["version"]:
        wrong = f"version {said['version']}, but its contents give {asked}"
        return [Problem(str(manifest), wrong, str(manifest))]
    problems = []
    for kind in ("input", "output"):
        for path, digest in said[f"{kind}s"].items():
            wrong = _compare(path, digest, {} if digests is None else digests)
            if wrong:
                problems.append(Problem(path, f"{wrong}, {kind} of {manifest}", str(manifest)))
    return problems


def _compare(path: str, digest: str, digests: dict[str, str]) -> str:
    """How a file differs from its digest, nothing if it does not."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            return "is no file"
        if path not in digests:
            digests[path] = sha256_file(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:  # a name that no file can have
        return "missing"
    found = digests[path]
    return "" if found == digest else f"sha256 {found[:12]}, not {digest[:12]}"
