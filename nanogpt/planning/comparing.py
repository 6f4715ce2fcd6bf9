"""Compare two results by their manifests, including everything upstream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt.artifacts.differences import NONE, Difference, manifest_differences, role_of
from nanogpt.artifacts.manifests import SUFFIX, model_among
from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.errors import UserError
from nanogpt.project import Project

# Parameters that only name the run or dataset.
NAMES = {"name", "dataset"}


@dataclass(frozen=True)
class Comparison:
    """A stage of two results.

    first, second: their directories. same: whether the outputs are identical. differences: in
    settings, code and environment, and in inputs that no other comparison explains.
    """

    stage: str
    first: str
    second: str
    same: bool
    differences: tuple[Difference, ...]


def compare(project: Project, first: Path, second: Path) -> list[Comparison]:
    """Compare the stages of two results of the same kind, and everything upstream, in order.

    first, second: files made by stages, or directories of runs or datasets.

    Errors: UserError for a path without a manifest, and for results of different kinds.
    """
    mine, others = _find_manifests(project, first), _find_manifests(project, second)
    stages = [stage for stage in mine if stage in others]
    if not stages:
        raise UserError(
            f"{first} was made by {', '.join(mine)}, but {second} by {', '.join(others)}; give two "
            "results of the same kind"
        )
    comparisons: dict[tuple[Path, Path], Comparison] = {}
    for stage in stages:
        _compare(project, mine[stage], others[stage], comparisons)
    order = {"train": 0, "combine": 0}
    return sorted(
        comparisons.values(), key=lambda one: (not _is_of_dataset(one), order.get(one.stage, 1))
    )


def _is_of_dataset(one: Comparison) -> bool:
    return one.stage in ("download", "download_gpt2", "write_builtin", "prepare")


def _compare(
    project: Project, mine: Path, other: Path, comparisons: dict[tuple[Path, Path], Comparison]
) -> None:
    if (mine, other) in comparisons or mine == other:
        return
    one, two = _read_manifest(mine), _read_manifest(other)
    initial = _compare_initial_models(one, two)
    differences = list(initial.values())[:1]
    for difference in manifest_differences(project, one, two):
        if difference.kind == "setting" and difference.what in NAMES:
            continue
        if difference.what in initial:
            continue
        pair = _find_makers(project, difference, one, two) if difference.kind == "input" else None
        stages = [_read_manifest(path).stage for path in pair] if pair else ["", ""]
        if pair and stages[0] == stages[1]:
            _compare(project, *pair, comparisons)
        elif pair:
            what = f"{Path(difference.what).parent.name} made by"
            differences.append(Difference("input", what, *stages))
        else:
            differences.append(difference)
    differences = list(dict.fromkeys(differences))  # a model's files have the same difference
    outputs = [_index_by_name(manifest.outputs) for manifest in (one, two)]
    comparisons[mine, other] = Comparison(
        one.stage, str(mine.parent), str(other.parent), outputs[0] == outputs[1], tuple(differences)
    )


def _compare_initial_models(one: Manifest, two: Manifest) -> dict[str, Difference]:
    """Compare two trainings of which only one has an initial model.

    Returns the same difference for each file of that model, by path; nothing for other stages.
    """
    models = [model_among(manifest.inputs) for manifest in (one, two)]
    if one.stage != "train" or all(models) or not any(models):
        return {}
    difference = Difference("input", "initial model", *(str(model or NONE) for model in models))
    paths = [*one.inputs, *two.inputs]
    return {path: difference for path in paths if Path(path).parent in models}


def _index_by_name(outputs: dict[str, str]) -> dict[str, str]:
    return {Path(path).name: digest for path, digest in outputs.items()}


def _find_makers(
    project: Project, difference: Difference, one: Manifest, two: Manifest
) -> tuple[Path, Path] | None:
    """Find the manifests of the stages that made a differing input, if both exist."""
    makers = []
    for manifest in (one, two):
        path = next(
            (path for path in manifest.inputs if role_of(path) == role_of(difference.what)), ""
        )
        maker = next(_iterate_makers(project, path), None) if path else None
        if not maker:
            return None
        makers.append(maker)
    return makers[0], makers[1]


def _iterate_makers(project: Project, path: str) -> Iterator[Path]:
    """Find the manifests that list a file as an output, in its directory or the one above."""
    directory = (project.root / path).parent
    for place in (directory, directory.parent):
        for manifest in sorted(place.glob(f"*{SUFFIX}")):
            try:
                if path in read_record(manifest, Manifest).outputs:
                    yield manifest
            except UserError:
                continue


def _find_manifests(project: Project, path: Path) -> dict[str, Path]:
    """Find the manifests of a result, by stage."""
    place = project.root / path
    if place.is_dir():
        manifests = sorted(place.glob(f"*{SUFFIX}")) or sorted(place.parent.glob(f"*{SUFFIX}"))
    elif path.name.endswith(SUFFIX) and place.exists():
        manifests = [place]
    elif place.exists():
        manifests = list(_iterate_makers(project, str(path)))
    else:
        raise UserError(f"{path}: no such file or directory; give existing results")
    if not manifests:
        raise UserError(
            f"{path}: no manifest found, so it's not known how it was made; give a "
            "result of the workflow"
        )
    return {_read_manifest(manifest).stage: manifest for manifest in _sort(manifests)}


def _sort(manifests: Sequence[Path]) -> list[Path]:
    """Sort `train` first, since it explains the others."""
    return sorted(manifests, key=lambda path: (not path.name.startswith("train"), path.name))


def _read_manifest(path: Path) -> Manifest:
    return read_record(path, Manifest)
