"""Tell the user, before the workflow runs, which trainings a result needs."""

import sys
from collections.abc import Sequence

from nanogpt.config.loading import read_mapping
from nanogpt.config.schema import Config
from nanogpt.errors import UserError, plural
from nanogpt.planning.explaining import find_targets
from nanogpt.planning.restoring import RESTORED, Outcomes
from nanogpt.planning.staleness import Verdict, Workflow
from nanogpt.project import HERE


def announce_trainings(config: Config, targets: Sequence[str], expected: str = "") -> None:
    """Print a line for each training that making some files would run.

    Nothing is printed if results are in a storage such as S3, where we can't look.

    expected: the run that the user asked to train, which needs no line.
    """
    if _has_storage():
        return
    workflow = Workflow(config, HERE)
    try:
        jobs = [job for target in targets for job in find_targets(workflow, target)[1]]
        verdicts = workflow.plan(dict.fromkeys(jobs), targets)
    except (UserError, OSError):  # such as a missing text, which the workflow reports
        return
    trainings = [
        verdict
        for verdict in verdicts
        if verdict.runs and verdict.job.stage == "train" and verdict.job.name != expected
    ]
    # To predict the outcome for a dataset that isn't prepared, the whole text would be read.
    is_prepared = not any(one.runs and one.job.stage == "prepare" for one in verdicts)
    outcomes = Outcomes(workflow).find(verdicts) if trainings and is_prepared else {}
    for verdict in trainings:
        line = _describe(verdict, outcomes.get(verdict.job, ""))
        print(f"{verdict.job.name}: {line}", file=sys.stderr, flush=True)


def _has_storage() -> bool:
    """Whether the project's profile makes Snakemake keep results in a storage."""
    try:
        provider = read_mapping(HERE.profile).get("default-storage-provider")
    except UserError:  # there's no profile, or Snakemake reports what's wrong with it
        return False
    return provider not in (None, "none")


def _describe(verdict: Verdict, outcome: str) -> str:
    """Describe why a run is trained first. outcome: what `Outcomes` found for it."""
    if outcome == RESTORED:
        return "restoring its model from the cache first"
    if outcome:
        return f"training it first ({outcome})"
    if verdict.manifest is None:
        return "not trained yet; training it first"
    reasons = [str(reason) for reason in verdict.reasons] or [
        f"`{job}` runs first" for job in verdict.upstream
    ]
    more = f", and {plural(len(reasons) - 1, 'more reason')}" if len(reasons) > 1 else ""
    return f"out of date ({reasons[0]}{more}); training it again first"
