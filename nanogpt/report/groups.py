"""Groups of runs: those that differ only in their seed, and those that share a benchmark."""

import json
from collections.abc import Sequence
from dataclasses import replace

from nanogpt.artifacts.records.benchmarks import Benchmark
from nanogpt.config.resolving import BENCHED
from nanogpt.report.run import Run


def relate(runs: Sequence[Run]) -> list[Run]:
    """Give each run the benchmark of its model and the name of its group of seeds."""
    benches: dict[str, Benchmark] = {}
    for run in runs:
        if run.bench:
            benches.setdefault(_benched(run), run.bench)
    groups = _group_names(runs)
    return [
        replace(run, bench=run.bench or benches.get(_benched(run)), group=groups[run.name])
        for run in runs
    ]


def _benched(run: Run) -> str:
    """Return what a benchmark depends on, as text; see `config.resolving.bench_runs`."""
    settings = [
        run.settings.get(f"{group}.{name}") for group, names in BENCHED.items() for name in names
    ]
    model = run.model.model_dump() if run.model else run.name
    return json.dumps([run.dataset, model, settings])


def _group_names(runs: Sequence[Run]) -> dict[str, str]:
    """Name each run's group by what its members' names share, if that's unique."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(same_but(run, {"train.seed"}), []).append(run.name)
    names = [shared_name(members) for members in seeds.values()]
    return {
        member: name if names.count(name) == 1 else members[0]
        for name, members in zip(names, seeds.values(), strict=True)
        for member in members
    }


def same_but(run: Run, settings: set[str]) -> str:
    """Return a key that's equal for runs that differ only in these settings.

    The key of a run without settings is its name.
    """
    rest = {
        name: value
        for name, value in run.settings.items()
        if name not in settings and name.startswith(("model.", "train."))
    }
    return json.dumps([run.dataset, rest] if rest else run.name, sort_keys=True)


def shared_name(names: Sequence[str]) -> str:
    """Return the dot-separated parts that all names share; a single name is returned whole."""
    parts = [name.split(".") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    return ".".join(shared) or names[0]


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by group, in order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return groups


def one_of_each_seed(group: Sequence[Run]) -> list[Run]:
    """Keep one run per seed, since runs can also differ only in evaluation or sampling."""
    seeds: dict[str, Run] = {}
    for run in sorted(group, key=lambda run: run.status != "finished"):
        seeds.setdefault(json.dumps(run.settings.get("train.seed", run.name)), run)
    chosen = {run.name for run in seeds.values()}
    return [run for run in group if run.name in chosen]
