"""Find out which results Snakemake would make again, and why.

Snakemake makes a requested file if it's missing, if an input is newer and has other contents, if
the rule's params or its set of inputs differ from those recorded, or if a killed job left it
unfinished. Everything that depends on it is made again too, and so are missing files on the way.
`tests/workflow/test_why.py` compares this module with `snakemake -n`. The manifest of a result has
the settings, inputs and code that it was made with.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from nanogpt.artifacts.code_functions import function_digests
from nanogpt.artifacts.differences import (
    Difference,
    code_differences,
    environment_differences,
    environment_here,
    setting_differences,
)
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.artifacts.rule_records import (
    LARGEST_COMPARED,
    RuleRecord,
    is_unfinished,
    read_rule_record,
)
from nanogpt.config.schema import Config
from nanogpt.errors import UserError
from nanogpt.files.atomic import sha256_file
from nanogpt.planning.stage_code import adapter_files, current_code
from nanogpt.planning.stages import (
    ShardedDatasets,
    StageJob,
    find_jobs,
    inputs_of,
    jobs_of_dataset,
    params_of,
    settings_of,
)
from nanogpt.project import SHARD, Project

# The state of a result: Snakemake would keep it, make it again, or make it for the first time; or
# it's gone and nothing needs it.
State = Literal["current", "again", "never made", "gone"]

OF_DATASET = re.compile(r"results/datasets/([^/]+)/")
# Files that jobs of a dataset of many files pass on: temporary ones of groups, and shards.
PARTS = re.compile(rf"{OF_DATASET.pattern}(groups/|{SHARD.pattern}$)")


@dataclass(frozen=True)
class Verdict:
    """What would happen to the outputs of a job, and why.

    reasons: why it would run. upstream: jobs that would run first, whose outputs it reads.
    unnoticed: differences that Snakemake doesn't notice. notes: further remarks for the user.
    manifest: of the existing outputs.
    """

    job: StageJob
    state: State
    reasons: tuple[Difference, ...] = ()
    upstream: tuple[StageJob, ...] = ()
    unnoticed: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    manifest: Manifest | None = None

    @property
    def runs(self) -> bool:
        """Whether Snakemake would run the job."""
        return self.state in ("again", "never made")


@dataclass
class _Findings:
    """Facts about a job's outputs, apart from other jobs."""

    manifest: Manifest | None
    was_made: bool
    reasons: list[Difference]
    unnoticed: list[Difference]
    notes: list[str]


@dataclass
class Workflow:
    """The jobs of a config and their verdicts. Each file is read only once."""

    config: Config
    project: Project
    _digests: dict[str, str] = field(default_factory=dict)
    _makers: dict[str, dict[str, StageJob]] = field(default_factory=dict)

    @cached_property
    def sharded(self) -> ShardedDatasets:
        """The datasets whose token files are shards."""
        return ShardedDatasets(self.config, self.project)

    def maker_of(self, path: str) -> StageJob | None:
        """Return the job that makes a file; None if no rule makes it."""
        match = OF_DATASET.match(path)
        dataset = match[1] if match else ""
        if dataset not in self._makers:
            jobs = self._jobs_of_datasets([dataset]) if match else find_jobs(self.config)
            self._makers[dataset] = {p: job for job in jobs for p in (*job.outputs, job.manifest)}
        return self._makers[dataset].get(path)

    def jobs_below(self, path: str) -> list[StageJob]:
        """Return the jobs with outputs below a directory."""
        below = f"{path}/"
        places = {name: f"results/datasets/{name}/" for name in self.config.datasets}
        near = [n for n, p in places.items() if p.startswith(below) or below.startswith(p)]
        jobs = [*self._jobs_of_datasets(near), *find_jobs(self.config)]
        return [job for job in jobs if any(output.startswith(below) for output in job.outputs)]

    def _jobs_of_datasets(self, names: Iterable[str]) -> list[StageJob]:
        known = [name for name in names if name in self.config.datasets]
        return [job for name in known for job in jobs_of_dataset(name, self.sharded)]

    def plan(self, jobs: Iterable[StageJob], needed: Iterable[str] = ()) -> list[Verdict]:
        """Return verdicts on some jobs and all that they depend on, in the order they would run.

        needed: the files that are wanted; empty: all outputs of the jobs.
        """
        targets = list(jobs)
        wanted = set(needed) or {path for job in targets for path in job.outputs}
        inputs: dict[StageJob, list[str]] = {}
        for job in targets:
            self._collect(job, inputs, ())
        findings = {job: self._examine(job, inputs, wanted) for job in inputs}
        running = self._spread(findings, inputs)
        return [self._judge(job, findings[job], inputs[job], running) for job in inputs]

    def _collect(
        self, job: StageJob, inputs: dict[StageJob, list[str]], below: tuple[StageJob, ...]
    ) -> None:
        """Add a job and its inputs, after the jobs that it depends on."""
        if job in inputs or job in below:
            return
        paths = inputs_of(self.config, job, self.sharded, self.project)
        for path in paths:
            if maker := self.maker_of(path):
                self._collect(maker, inputs, (*below, job))
        inputs[job] = paths

    def _spread(
        self, findings: dict[StageJob, _Findings], inputs: dict[StageJob, list[str]]
    ) -> set[StageJob]:
        """Return the jobs that run: with reasons, downstream, or making missing inputs."""
        running = {job for job, of_job in findings.items() if of_job.reasons}
        before = -1
        while before < len(running):
            before = len(running)
            for job, paths in inputs.items():
                makers = {path: maker for path in paths if (maker := self.maker_of(path))}
                if not running.isdisjoint(makers.values()):
                    running.add(job)
                if job in running:
                    running |= {m for path, m in makers.items() if not self._exists(path)}
        return running

    def _judge(
        self, job: StageJob, findings: _Findings, inputs: Sequence[str], running: set[StageJob]
    ) -> Verdict:
        upstream = dict.fromkeys(m for m in map(self.maker_of, inputs) if m and m in running)
        gone = [path for path in (*job.outputs, job.manifest) if not self._exists(path)]
        state: State = "current"
        reasons = findings.reasons
        if job in running:
            state = "again" if findings.was_made else "never made"
            if not reasons and not upstream and findings.was_made:
                reasons = [Difference("input", f"{path} is missing") for path in gone]
        elif gone:
            state = "gone"
        notes = list(findings.notes)
        if job.stage == "prepare" and job in running and len(inputs) > 1:
            notes.append("the jobs `count`, `plan` and `encode` of its files would run first")
        noticed = (tuple(reasons), tuple(upstream), tuple(findings.unnoticed))
        return Verdict(job, state, *noticed, tuple(notes), findings.manifest)

    # --- One job ------------------------------------------------------------------------------

    def _examine(
        self, job: StageJob, inputs: dict[StageJob, list[str]], wanted: set[str]
    ) -> _Findings:
        """Find a job's own reasons to run, apart from those of its inputs."""
        manifest, problem = self._read_manifest(job)
        notes = [problem] if problem else self._find_edits(job, manifest)
        outputs = (*job.outputs, job.manifest)
        present = [path for path in outputs if self._exists(path)]
        record = next(filter(None, (read_rule_record(self.project, p) for p in outputs)), None)
        missing = [path for path in job.outputs if path in wanted and path not in present]
        reasons = [Difference("input", f"{path} is missing") for path in missing]
        was_made = bool(present or record)
        if not was_made:
            return _Findings(None, was_made, reasons, [], [])
        reasons += self._find_unfinished(job)
        if present:
            # A new input has a reason of its own, whether or not it's newer.
            read = [path for path in inputs[job] if record is None or path in record.inputs]
            reasons += self._find_newer_inputs(job, read, min(map(self._mtime, present)))
        code = current_code(job.stage, self.project)
        unnoticed: list[Difference] = []
        # Only find differences if there are any, since that reads whole texts.
        if record is None:
            unnoticed = self._find_differences(job, manifest, record, code)
        elif not params_of(self.config, job, code, self.sharded, self.project) <= record.params:
            differences = self._find_differences(job, manifest, record, code)
            reasons += differences or [Difference("setting", self._describe_unnamed(job))]
        else:
            reasons += self._find_other_inputs(inputs[job], record)
        return _Findings(manifest, was_made, reasons, unnoticed, notes)

    def _read_manifest(self, job: StageJob) -> tuple[Manifest | None, str]:
        """Read the manifest of a job. Also returns the problem with it, if any."""
        path = self.project.root / job.manifest
        if not path.exists():
            return None, ""
        try:
            return read_record(path, Manifest), ""
        except UserError as error:
            return None, str(error)

    def _find_unfinished(self, job: StageJob) -> list[Difference]:
        if any(is_unfinished(self.project, path) for path in job.outputs):
            return [Difference("input", "an earlier run was killed while making this")]
        return []

    def _find_newer_inputs(
        self, job: StageJob, inputs: Sequence[str], oldest: float
    ) -> list[Difference]:
        """Find inputs that are newer than an output, unless Snakemake knows they didn't change.

        oldest: the time of the oldest output.
        """
        differences = []
        manifest, _ = self._read_manifest(job)
        for path in inputs:
            if not self._exists(path) or self._mtime(path) <= oldest or self._is_same(job, path):
                continue
            if job.stage == "prepare" and not self.maker_of(path) and manifest:
                continue  # also in its params, which list the file
            before = manifest.inputs.get(path) if manifest else None
            if before and before == self.digest_of(path):
                what = (
                    f"{path} is newer, with the same contents; Snakemake only compares small files"
                )
                differences.append(Difference("input", what))
            else:
                differences.append(Difference("input", f"{path} {self._describe_change(path)}"))
        return differences

    def _is_same(self, job: StageJob, path: str) -> bool:
        """Whether Snakemake knows that an input's contents didn't change."""
        if (self.project.root / path).stat().st_size > LARGEST_COMPARED:
            return False
        records = [read_rule_record(self.project, output) for output in job.outputs]
        known = {
            record.checksums[path] for record in records if record and path in record.checksums
        }
        return known == {f"sha256:{self.digest_of(path)}"}

    def _describe_change(self, path: str) -> str:
        """Describe how an input changed."""
        maker = self.maker_of(path)
        if maker is None:
            return "has different contents now"
        manifest, _ = self._read_manifest(maker)
        if manifest and manifest.outputs.get(path) not in (None, self.digest_of(path)):
            return f"was edited after `{maker}` made it"
        return f"was made again by `{maker}`, with different contents"

    def _find_differences(
        self, job: StageJob, manifest: Manifest | None, record: RuleRecord | None, code: str | None
    ) -> list[Difference]:
        """Find settings, code and local files that differ from those that made the outputs."""
        now = settings_of(self.config, job, self.sharded)
        before = (record and record.groups()) or (manifest.parameters if manifest else None)
        differences: list[Difference] = []
        if before is not None and job.stage != "download":
            differences += setting_differences(
                before, now, resolved=not (record and record.groups())
            )
        elif job.stage == "download" and record:
            differences += setting_differences(record.groups(), now)
        if manifest and code is not None and manifest.code != code:
            functions = function_digests(adapter_files(job.stage, self.project))
            differences += code_differences(self.project, manifest.code, code, functions)
        if manifest and job.stage == "prepare":
            differences += self._compare_local_files(job, manifest)
        return differences

    def _compare_local_files(self, job: StageJob, manifest: Manifest) -> list[Difference]:
        """Find local files that differ from those that a dataset was made from."""
        paths = [
            p
            for p in inputs_of(self.config, job, self.sharded, self.project)
            if not self.maker_of(p)
        ]
        before = {path for path in manifest.inputs if not self.maker_of(path)}
        words = {
            path: "is new" if path not in before else "has different contents now"
            for path in paths
            if self._exists(path) and self.digest_of(path) != manifest.inputs.get(path)
        }
        words |= dict.fromkeys(sorted(before - set(paths)), "is no longer part of the corpus")
        return [Difference("input", f"{path} {what}") for path, what in words.items()]

    def _find_other_inputs(self, inputs: Sequence[str], record: RuleRecord) -> list[Difference]:
        """Find inputs that a rule has gained or lost."""
        before = {path for path in record.inputs if not PARTS.search(path)}
        added = [
            Difference("input", f"{path} is a new input") for path in inputs if path not in before
        ]
        return added + [
            Difference("input", f"{path} is no longer an input")
            for path in sorted(before - set(inputs))
        ]

    @staticmethod
    def _describe_unnamed(job: StageJob) -> str:
        """Describe the difference if settings, code and contents are the same."""
        if job.stage == "prepare":
            return "its files were touched or moved, with the same contents"
        if job.stage == "download":
            return "config.yaml has a different sha256"
        return "params other than settings, such as those of a profile"

    def _find_edits(self, job: StageJob, manifest: Manifest | None) -> list[str]:
        """Find outputs that don't match their manifest."""
        if manifest is None:
            is_made = any(map(self._exists, job.outputs))
            return ["it has no manifest, so it's not known how it was made"] if is_made else []
        written = self._mtime(job.manifest)
        return [
            f"{path} was edited"
            for path in job.outputs
            if path in manifest.outputs
            and self._exists(path)
            and self._mtime(path) > written
            and self.digest_of(path) != manifest.outputs[path]
        ]

    # --- Files --------------------------------------------------------------------------------

    def _exists(self, path: str) -> bool:
        return (self.project.root / path).exists()

    def _mtime(self, path: str) -> float:
        """Return a file's mtime as Snakemake does: for a link, its own or its target's if later."""
        place = self.project.root / path
        return max(place.stat().st_mtime, os.lstat(place).st_mtime)

    def digest_of(self, path: str) -> str:
        """Return the sha256 of an existing file."""
        if path not in self._digests:
            self._digests[path] = sha256_file(self.project.root / path)
        return self._digests[path]


def environment_notes(manifest: Manifest) -> list[Difference]:
    """List how this machine differs from the one that made a result. Nothing runs again for it."""
    return environment_differences(manifest.environment, environment_here(manifest.environment))


def path_of(project: Project, path: Path) -> str:
    """Return a path as in manifests: relative to the project's root if it's inside it."""
    root = project.root.resolve()
    whole = path.resolve()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(path)
