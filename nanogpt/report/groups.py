"""Runs that belong together: seeds of one recipe, and runs that one benchmark serves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nanogpt.config.resolving import BENCHED
from nanogpt.report.run import Run


def put_together(runs: list[Run]) -> list[Run]:
    """Give runs what they share: a benchmark of the same model, and a name for a group of seeds."""

    def measured(run: Run) -> str:
        """What a benchmark is of, as config.bench_runs has it."""
        taken = [
            run.settings.get(f"{group}.{name}")
            for group, names in BENCHED.items()
            for name in names
        ]
        model = run.model.model_dump() if run.model else run.name
        return json.dumps([run.dataset, model, taken])

    benches: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        if run.bench:
            benches.setdefault(measured(run), run.bench)
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(same_but(run, {"train.seed"}), []).append(run.name)
    names = [shared_name(members) for members in seeds.values()]
    group_of = {
        member: name if names.count(name) == 1 else members[0]
        for name, members in zip(names, seeds.values(), strict=True)
        for member in members
    }
    return [
        replace(run, bench=run.bench or benches.get(measured(run), {}), group=group_of[run.name])
        for run in runs
    ]


def same_but(run: Run, settings: set[str]) -> str:
    """What runs have in common that differ in these settings only; a run without any, its name."""
    kept = {
        name: value
        for name, value in run.settings.items()
        if name not in settings and name.startswith(("model.", "train."))
    }
    return json.dumps([run.dataset, kept] if kept else run.name, sort_keys=True)


def shared_name(names: Sequence[str]) -> str:
    """What the names of some runs have in common, part by part between dots; a single one's own."""
    parts = [name.split(".") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    return ".".join(shared) or names[0]


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each group, in their order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return groups


def one_of_each_seed(group: Sequence[Run]) -> list[Run]:
    """The runs of a group without those that differ in evaluation or sampling alone."""
    seeds: dict[Any, Run] = {}
    for run in sorted(group, key=lambda run: run.status != "finished"):
        seeds.setdefault(run.settings.get("train.seed", run.name), run)
    chosen = {run.name for run in seeds.values()}
    return [run for run in group if run.name in chosen]
