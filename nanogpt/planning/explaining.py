"""The output of `nanogpt why`: verdicts and comparisons as text or JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import JsonValue

from nanogpt.artifacts.differences import Difference
from nanogpt.artifacts.manifests import SUFFIX
from nanogpt.config.messages import did_you_mean, look_up
from nanogpt.config.resolving import run_names
from nanogpt.errors import UserError, plural
from nanogpt.planning.comparing import Comparison
from nanogpt.planning.stages import EXPORTS, StageJob
from nanogpt.planning.staleness import Verdict, Workflow, environment_notes, path_of
from nanogpt.project import Project

# Stages that only run on request, so a complete run may not have their results.
OPTIONAL = {"bench", "tensorboard", "ngram", "count_ngrams", *EXPORTS}
LABELS = {"setting": "setting", "code": "code", "input": "", "environment": "environment"}


def find_targets(workflow: Workflow, target: str) -> tuple[str, list[StageJob], list[str]]:
    """Resolve a path or a run's name. Returns the path, its jobs, and the files that are wanted.

    Errors: UserError for a path that no rule makes.
    """
    name = str(Path(target))
    project = workflow.project
    if "/" not in name and not (project.root / name).exists():
        known = [*run_names(workflow.config), *workflow.config.datasets]
        look_up(known, name, "why", "run")
        is_run = name in run_names(workflow.config)
        name = f"results/{name}" if is_run else f"results/datasets/{name}"
    path = path_of(project, Path(name) if Path(name).is_absolute() else project.root / name)
    if maker := workflow.maker_of(path):
        return path, [maker], [path]
    jobs = workflow.jobs_below(path)
    jobs = [job for job in jobs if job.stage not in OPTIONAL or _is_made(workflow, job)]
    if not jobs:
        raise UserError(
            f"{target}: no rule makes it with the current config.yaml; give a run, or a file or "
            "directory of a run or dataset"
        )
    files = [file for job in jobs for file in job.outputs if file.startswith(f"{path}/")]
    return path, jobs, files


def existing_path(project: Project, target: str) -> Path:
    """Return the path of an existing result, or of a run by its name, relative to the project.

    Errors: UserError for a name without results.
    """
    place = Path(target)
    if "/" not in target and not (project.root / target).exists():
        runs, datasets = project.results / target, project.datasets / target
        if not (runs.exists() or datasets.exists()):
            made = (
                path.parent.name
                for directory in (project.results, project.datasets)
                for path in directory.glob(f"*/*{SUFFIX}")
            )
            near = did_you_mean(target, dict.fromkeys(made), none="")
            raise UserError(f"{target}: no results of this name{near}")
        place = runs if runs.exists() else datasets
    elif not place.is_absolute():
        place = project.root / place
    return Path(path_of(project, place))


def _is_made(workflow: Workflow, job: StageJob) -> bool:
    return (workflow.project.root / job.manifest).exists()


# --- Why a result would be made again ---------------------------------------------------------


def explain(
    path: str,
    targets: Sequence[StageJob],
    verdicts: Sequence[Verdict],
    outcomes: Mapping[StageJob, str],
) -> list[str]:
    """Explain why the result at a path would be made again, root causes first, or that it won't."""
    running = [verdict for verdict in verdicts if verdict.runs]
    lines = [f"{path}: {_write_headline(targets, verdicts)}"]
    in_part = _is_made_in_part(targets, verdicts)
    width = max((len(str(verdict.job)) for verdict in verdicts), default=0)
    rows = [
        (str(verdict.job), line)
        for verdict in verdicts
        for line in _write_lines(verdict, outcomes.get(verdict.job))
        or (["up to date"] if in_part and verdict.job in targets else [])
    ]
    lines += _align(rows, width)
    if not running:
        lines += _describe_environment(targets, verdicts)
    return lines + _list_unnoticed(verdicts)


def _list_unnoticed(verdicts: Sequence[Verdict]) -> list[str]:
    """Suggest what to do about differences that Snakemake doesn't notice."""
    stages = sorted({verdict.job.stage for verdict in verdicts if verdict.unnoticed})
    if not stages:
        return []
    return [
        "",
        "Snakemake doesn't know how these were made (maybe they were copied here), so it keeps",
        f"them. To make them again: snakemake --cores all --forcerun {' '.join(stages)}",
    ]


def _write_headline(targets: Sequence[StageJob], verdicts: Sequence[Verdict]) -> str:
    running = [verdict for verdict in verdicts if verdict.runs]
    if not running:
        differs = any(verdict.unnoticed for verdict in verdicts)
        return "made differently, but Snakemake would keep it" if differs else "up to date"
    jobs = plural(len(running), "job")
    if _is_made_in_part(targets, verdicts):
        return f"partly made; {jobs} would run"
    if all(verdict.state == "never made" for verdict in running if verdict.job in targets):
        return f"not made yet; {jobs} would run"
    return f"would be made again; {jobs} would run"


def _is_made_in_part(targets: Sequence[StageJob], verdicts: Sequence[Verdict]) -> bool:
    """Whether some targets are up to date and the others were never made."""
    states = {verdict.state for verdict in verdicts if verdict.job in targets}
    return states == {"current", "never made"}


def _write_lines(verdict: Verdict, outcome: str | None) -> list[str]:
    lines = [_write_line(reason) for reason in verdict.reasons]
    if verdict.state == "never made":
        lines = []  # no need to list the missing files
        lines.append("not made yet")
    if verdict.state == "gone":
        lines.append("missing, but nothing that depends on it would be made again")
    if verdict.upstream and verdict.state == "again" and not lines:
        jobs = " and ".join(f"`{job}`" for job in verdict.upstream)
        lines.append(f"its inputs would be made by {jobs}")
    lines += [_write_line(difference) for difference in verdict.unnoticed]
    lines += verdict.notes
    if verdict.notes and not verdict.runs and verdict.manifest:
        lines.append("this alone doesn't make it run again; to make it again, remove it")
    if outcome:
        lines.append(f"-> {outcome}")
    return lines


def _write_line(difference: Difference) -> str:
    label = LABELS[difference.kind]
    return f"{label} {difference}" if label else str(difference)


def _describe_environment(targets: Sequence[StageJob], verdicts: Sequence[Verdict]) -> list[str]:
    """Describe how this machine differs from those that made the results."""
    notes: dict[str, None] = {}
    for verdict in verdicts:
        if verdict.job in targets and verdict.manifest:
            notes.update((str(one), None) for one in environment_notes(verdict.manifest))
    if not notes:
        return []
    return [
        "",
        "Made in another environment. Nothing runs again for that, but the last bits may differ:",
        *(f"  {line}" for line in notes),
    ]


def _align(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Format rows as two columns, without repeating a name in the first."""
    lines, last = [], ""
    for name, text in rows:
        lines.append(f"  {'' if name == last else name:<{width}}  {text}")
        last = name
    return lines


# --- How two results differ -------------------------------------------------------------------


def explain_comparison(first: str, second: str, comparisons: Sequence[Comparison]) -> list[str]:
    """Explain how two results differ, stage by stage in the order of the workflow."""
    differing = [one for one in comparisons if one.differences]
    if not comparisons:
        return [f"{first} and {second} are the same result"]
    same = all(one.same for one in comparisons)
    if not differing:
        end = "and have the same contents" if same else "but their contents differ"
        return [f"{first} and {second} were made in the same way, {end}"]
    end = ", but with the same contents" if same else ""
    lines = [f"{first} -> {second}: made differently{end}"]
    rows = [
        (_name_comparison(one, comparisons), line)
        for one in comparisons
        for line in map(_write_line, one.differences)
    ]
    rows += [
        (
            _name_comparison(one, comparisons),
            "same settings, code and environment; only its inputs differ",
        )
        for one in comparisons
        if not one.differences and not one.same
    ]
    return lines + _align(rows, max(len(name) for name, _ in rows))


def _name_comparison(one: Comparison, comparisons: Sequence[Comparison]) -> str:
    """Return the stage, with the two names if it's compared several times.

    That's the case for runs that start from two runs, which are compared too.
    """
    if sum(other.stage == one.stage for other in comparisons) == 1:
        return one.stage
    return f"{one.stage} {Path(one.first).name} -> {Path(one.second).name}"


# --- JSON -------------------------------------------------------------------------------------


def verdicts_as_json(
    path: str, verdicts: Sequence[Verdict], outcomes: Mapping[StageJob, str]
) -> dict[str, JsonValue]:
    """Return verdicts as JSON."""
    jobs: list[JsonValue] = [
        {
            "job": str(verdict.job),
            "stage": verdict.job.stage,
            "state": verdict.state,
            "reasons": [asdict(one) for one in verdict.reasons],
            "upstream": [str(job) for job in verdict.upstream],
            "unnoticed": [asdict(one) for one in verdict.unnoticed],
            "notes": list(verdict.notes),
            "outcome": outcomes.get(verdict.job, ""),
        }
        for verdict in verdicts
    ]
    return {"path": path, "jobs": jobs}
