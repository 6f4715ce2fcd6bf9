"""Find out whether a job that runs again would compute, copy from the cache, or resume.

The version of a job's outputs is known if the contents of all its inputs are known.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from nanogpt.artifacts import cache, manifests
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import CacheEntry
from nanogpt.artifacts.stages import resolve_devices, without_device_index
from nanogpt.artifacts.states import is_saved
from nanogpt.errors import UserError
from nanogpt.planning.stage_code import current_code
from nanogpt.planning.stages import StageJob, inputs_of, settings_of
from nanogpt.planning.staleness import Verdict, Workflow
from nanogpt.training.state_files import saved_steps

# Stages whose results aren't cached.
NOT_CACHED = {"download", "download_gpt2", "bench"}

RESTORED = "restored from the cache"


@dataclass
class Outcomes:
    """The outcomes of jobs that wouldn't start from scratch, such as `restored from the cache`."""

    workflow: Workflow
    words: dict[StageJob, str] = field(default_factory=dict)
    _made: dict[str, str] = field(
        default_factory=dict
    )  # sha256 of the files after the jobs have run

    def find(self, verdicts: Iterable[Verdict]) -> dict[StageJob, str]:
        """Return the outcomes by job, for jobs that would run and don't start from scratch."""
        for verdict in verdicts:
            if not verdict.runs:
                for path in (*verdict.job.outputs, verdict.job.manifest):
                    if (self.workflow.project.root / path).exists():
                        self._made[path] = self._find_digest(verdict, path)
            else:
                self._note(verdict.job)
        return self.words

    def _find_digest(self, verdict: Verdict, path: str) -> str:
        manifest = verdict.manifest
        if manifest and path in manifest.outputs and not verdict.notes:
            return manifest.outputs[path]
        return self.workflow.digest_of(path)

    def _note(self, job: StageJob) -> None:
        version = self._find_version(job)
        if version is None:
            return
        entry = self._find_entry(version)
        if entry and job.stage not in NOT_CACHED:
            self.words[job] = RESTORED
            self._made |= {f"{job.directory}/{name}": d for name, d in entry.outputs.items()}
        state = self.workflow.project.states / version
        if not entry and job.stage == "train" and is_saved(state):
            self.words[job] = f"resumes at step {max(saved_steps(state))}"

    def _find_version(self, job: StageJob) -> str | None:
        """Return the version of a job's outputs; None if an input's contents aren't known."""
        workflow = self.workflow
        inputs = {}
        for path in inputs_of(workflow.config, job, workflow.sharded, workflow.project):
            if path in self._made:
                inputs[path] = self._made[path]
            elif not workflow.maker_of(path) and (workflow.project.root / path).is_file():
                inputs[path] = workflow.digest_of(path)
            else:
                return None
        code = current_code(job.stage, workflow.project)
        if code is None:
            return None
        settings = settings_of(workflow.config, job, workflow.sharded)
        if job.stage == "prepare" and len(inputs) > 1:
            return None  # the files' parts are made before the cache is checked
        parameters = without_device_index(resolve_devices(settings))
        return manifests.version(job.stage, parameters, inputs, code)

    def _find_entry(self, version: str) -> CacheEntry | None:
        place = self.workflow.project.cache
        try:
            return read_record(place / version / cache.MANIFEST, CacheEntry) if place else None
        except UserError:
            return None
