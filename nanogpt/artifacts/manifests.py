"""Manifests: what a stage was asked for, from what, with which code, and what came of it.

`version` names what was asked for; `verify` holds a manifest against the files. Who runs a stage,
and what the stage does, is left to others.
"""

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt import __version__
from nanogpt.files.atomic import read_json, sha256_file


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
