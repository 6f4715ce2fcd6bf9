"""Manifests: compute the version of a request, and verify files against their manifests."""

import hashlib
import json
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import JsonValue

from nanogpt import __version__
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Environment, Layout, Manifest, Request
from nanogpt.errors import UserError
from nanogpt.files.atomic import sha256_file
from nanogpt.project import Project

SUFFIX = ".manifest.json"


def version(
    stage: str, parameters: Mapping[str, JsonValue], inputs: Mapping[str, str], code: str
) -> str:
    """The version of a request: 12 hex digits.

    inputs: sha256 by path, in the rule's order. Directories are ignored, so renaming a run changes
    no version.
    """
    by_name = [(Path(path).name, digest) for path, digest in inputs.items()]
    request = json.dumps([stage, parameters, by_name, code], sort_keys=True)
    return hashlib.sha256(request.encode()).hexdigest()[:12]


def version_of(request: Request) -> str:
    """The version computed from a request's contents, which should equal `request.version`."""
    return version(request.stage, request.parameters, request.inputs, request.code)


def digests(project: Project, paths: Iterable[str]) -> dict[str, str]:
    """The sha256 of each file, by path relative to the project's root, in the given order."""
    return {path: sha256_file(project.root / path) for path in paths}


def model_among(inputs: Iterable[str]) -> Path | None:
    """The model directory among a stage's inputs. For a training, it's the initial model."""
    found = (Path(path).parent for path in inputs if Path(path).name == "model.safetensors")
    return next(found, None)


def environment(threads: int, layouts: Sequence[Layout] = ()) -> Environment:
    """The environment, which affects the last bits of a result without being requested."""
    described: dict[str, object] = {
        "nanogpt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": threads,
        "ranks": layouts[-1].ranks if layouts else 1,
    }
    # Importing torch here would slow down a stage that doesn't use it.
    torch = sys.modules.get("torch")
    if torch is not None:
        described["torch"] = str(torch.__version__)
        described["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        described["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if layouts:
        described["layouts"] = layouts
    return Environment.model_validate(described)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Problem:
    """A file that doesn't match a manifest."""

    path: str
    problem: str
    manifest: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def find_manifests(project: Project, paths: Sequence[Path]) -> dict[Path, Manifest | None]:
    """The manifests at or below some paths, and recursively those of their inputs.

    A damaged manifest is None; `verify` reports it.
    """
    waiting: deque[Path] = deque()
    read = cache(_read)
    makers: dict[Path, dict[str, list[Path]]] = {}  # by directory and output
    for path in paths:
        waiting += [path] if path.is_file() else sorted(path.rglob(f"*{SUFFIX}"))
    found: dict[Path, Manifest | None] = {}
    while waiting:
        path = waiting.popleft()
        if path in found:
            continue
        manifest = found[path] = read(path)
        for input_path in manifest.inputs if manifest else ():
            # A stage's manifest is in the directory of its outputs or one directory up.
            beside = (project.root / input_path).parent
            for directory in (beside, beside.parent):
                if directory not in makers:
                    makers[directory] = _makers(directory, read)
                waiting += makers[directory].get(input_path, [])
    return found


def _makers(directory: Path, read: Callable[[Path], Manifest | None]) -> dict[str, list[Path]]:
    """The manifests in a directory, by the outputs that they list."""
    makers: dict[str, list[Path]] = {}
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        manifest = read(path)
        for output in manifest.outputs if manifest else ():
            makers.setdefault(output, []).append(path)
    return makers


def _read(path: Path) -> Manifest | None:
    """Read a manifest; None if it's damaged."""
    try:
        return read_record(path, Manifest)
    except UserError:
        return None


def verify(
    project: Project, path: Path, known_digests: dict[str, str] | None = None
) -> list[Problem]:
    """The problems of a manifest and of the files that it lists.

    known_digests: sha256 by path of files that were already read; files read here are added.
    """
    try:
        manifest = read_record(path, Manifest)
    except UserError as error:
        return [Problem(str(path), str(error).removeprefix(f"{path}: "), str(path))]
    if version_of(manifest) != manifest.version:
        wrong = (
            f"edited: it's for version {manifest.version}, but its contents are those of version "
            f"{version_of(manifest)}"
        )
        return [Problem(str(path), wrong, str(path))]
    known_digests = {} if known_digests is None else known_digests
    problems = []
    for kind, files in (("input", manifest.inputs), ("output", manifest.outputs)):
        for name, digest in files.items():
            wrong = _compare(project, name, digest, known_digests)
            if wrong:
                problems.append(Problem(name, f"{wrong} ({kind} recorded in {path})", str(path)))
    return problems


def _compare(project: Project, name: str, digest: str, known_digests: dict[str, str]) -> str:
    """Describe how a file differs from its digest; "" if it doesn't."""
    path = project.root / name
    try:
        if path.exists() and not path.is_file():
            return "not a file"
        if name not in known_digests:
            known_digests[name] = sha256_file(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    except ValueError:  # the name isn't a possible file name
        return "missing"
    found = known_digests[name]
    return "" if found == digest else f"wrong sha256: expected {digest[:12]}, found {found[:12]}"
