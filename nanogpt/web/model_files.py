"""The model directories in a server's results: names, versions, and the settings of their runs."""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from nanogpt.artifacts.manifests import SUFFIX
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.config.loading import read
from nanogpt.config.parameters import complete
from nanogpt.config.patterns import NAME
from nanogpt.config.resolving import resolve_run, run_names
from nanogpt.config.schema import SampleSettings
from nanogpt.errors import REMAKE, UserError
from nanogpt.files.atomic import sha256_file
from nanogpt.model.directories import MODEL_FILES
from nanogpt.project import NGRAMS_FILE, Project
from nanogpt.web.run_files import is_inside, open_inside

WEIGHTS = MODEL_FILES[0]
# The stages whose manifests have the digests of a model's files.
STAGES = ("train", "combine")

# A version of a model: name, inode, size and time of change of each file.
Version = tuple[tuple[str, int, int, int], ...]


def created_of(version: Version) -> int:
    """Return the time of a version's weights, in seconds since 1970."""
    return version[0][3] // 1_000_000_000


@dataclass(frozen=True)
class ModelDirectory:
    """A name that has a model. created: the time of its weights, in seconds since 1970."""

    name: str
    created: int


class ModelFiles:
    """The files of all models in a directory of results. Symbolic links out of it don't count."""

    def __init__(self, results: Path, project: Project) -> None:
        self._results = results
        self._root = results.resolve()
        self._project = project

    def directory(self, name: str) -> Path:
        """Return the model directory that belongs to a name."""
        return self._results / name / "model"

    def all(self) -> list[ModelDirectory]:
        """Find all models, sorted by name."""
        try:
            names = sorted(path.name for path in self._results.iterdir())
        except OSError:
            return []
        found = []
        for name in names:
            version = self.version(name)
            if version and self.is_inside(name):
                found.append(ModelDirectory(name, created_of(version)))
        return found

    def has_run(self, name: str) -> bool:
        """Whether there's a directory for a name, with or without a model."""
        return bool(NAME.fullmatch(name)) and os.path.isdir(self._results / name)  # noqa: PTH112

    def version(self, name: str) -> Version | None:
        """Return the version of a model; None if there's none, or it isn't complete.

        It's quick, because each request compares it.
        """
        if not NAME.fullmatch(name):
            return None
        version = []
        directory = f"{self._results}/{name}/model/"
        for file in (*MODEL_FILES, NGRAMS_FILE):
            try:
                found = os.stat(directory + file)  # noqa: PTH116 - a Path takes three times as long
            except OSError:
                if file == NGRAMS_FILE:
                    continue
                return None
            if not stat.S_ISREG(found.st_mode):
                return None
            version.append((file, found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(version)

    def is_inside(self, name: str) -> bool:
        """Whether no symbolic link leads from a model's directory or files out of the results."""
        directory = self.directory(name)
        paths = [directory.parent, directory]
        paths += [directory / file for file in (*MODEL_FILES, NGRAMS_FILE)]
        if not any(path.is_symlink() for path in paths):
            return True
        return all(is_inside(path, self._results) for path in paths)

    def n_bytes(self, name: str) -> int:
        """Return the size of a model's weights file."""
        return (self.directory(name) / WEIGHTS).stat().st_size

    def match_manifest(self, name: str) -> bool:
        """Whether a model's files are those that its run's manifest lists, if there is one.

        While a new model is written, some files are those of the old one.
        """
        for stage in STAGES:
            path = self._results / name / f"{stage}{SUFFIX}"
            if not (path.is_file() and is_inside(path, self._results)):
                continue
            outputs = self._read_manifest(path).outputs
            digests = {Path(output).name: digest for output, digest in outputs.items()}
            return all(
                sha256_file(self.directory(name) / file) == digests[file]
                for file in MODEL_FILES
                if file in digests
            )
        return True

    def manifests(self, name: str) -> Version:
        """Return the version of the manifests that list a model's files."""
        found = []
        for stage in STAGES:
            file = f"{stage}{SUFFIX}"
            try:
                status = (self._results / name / file).stat()
            except OSError:
                continue
            found.append((file, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def settings(self, name: str) -> SampleSettings:
        """Return the settings of a run's samples, of config.yaml or else of its manifest."""
        try:
            if self._project.config_file.exists() and self._is_of_project():
                config = read(self._project.config_file)
                if name in run_names(config):
                    return resolve_run(config, name).sample
        except UserError:
            pass  # the page still has the model, even if config.yaml is being edited
        path = self._results / name / f"sample{SUFFIX}"
        try:
            found = self._read_manifest(path).parameters.get("sample")
            if isinstance(found, dict):
                return complete(SampleSettings, found)
        except UserError:
            pass
        return SampleSettings()

    def _read_manifest(self, path: Path) -> Manifest:
        """Read a manifest without waiting, as a pipe would make us.

        Errors: UserError if it's damaged, or no file in the results.
        """
        file = open_inside(path, self._results)
        if file is None:
            raise UserError(f"{path}: not a file in the results that can be read; {REMAKE}")
        try:
            with file:
                content = json.loads(file.read())
            json.dumps(content, ensure_ascii=False).encode()  # fails for a lone surrogate
        except (OSError, ValueError, RecursionError):
            raise UserError(f"{path}: damaged: not JSON; {REMAKE}") from None
        return Manifest.parse(content, str(path), REMAKE)

    def _is_of_project(self) -> bool:
        return self._root == self._project.results.resolve()
