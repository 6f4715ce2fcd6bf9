"""An edit of code reruns only the stages that use it, and a comment reruns nothing.

We test this in parts: a stage's digest covers the modules that it loads (test_closures), an edit of
a module changes the digests of its stages, and a stage with a changed digest is rerun.
runs again.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nanogpt.artifacts.code_digest import NEUTRAL, closure, code_digest
from tests.checkouts import PROJECT, copy_checkout
from tests.workflow.projects import (
    FAR,
    FORMATS,
    PAGE,
    REMODELLING,
    RETOKENIZING,
    RETRAINING,
    planned,
    replacement,
)

ADAPTERS = {path.stem: path for path in sorted((PROJECT / "workflow/scripts").glob("*.py"))}
# A package itself has no code to edit.
MODULES = sorted(
    ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    for path in (PROJECT / "nanogpt").rglob("*.py")
    if path.name != "__init__.py"
)

# The jobs that an edit of a stage's code reruns.
RERUNS = {
    "bench": {"bench": 1, "bench_report": 1},
    "bench_report": {"bench_report": 1},
    # These prepare datasets, some in one job and some in many.
    "count": RETOKENIZING,
    "combine": {},  # the report has no ensemble
    "count_ngrams": {},  # no run of the report uses them
    "encode": RETOKENIZING,
    "plan": RETOKENIZING,
    "prepare": RETOKENIZING,
    "download": {},  # the content of a URL doesn't depend on our code
    "download_gpt2": {},
    "eval": {"eval": 2, "bench_report": 1},
    "export_gguf": {},  # the report needs no export
    "export_huggingface": {},
    "export_nanogpt": {},
    "import_model": {},  # no run of the report starts from one
    "ngram": {"ngram": 1, "bench_report": 1},
    "sample": {"sample": 2, "bench_report": 1},
    "tensorboard": {"tensorboard": 2, "bench_report": 1},
    "train": RETRAINING,
    "write_builtin": {**RETOKENIZING, "write_builtin": 1},
}


def edit_stage(project: Path, stage: str) -> None:
    with open(project / f"workflow/scripts/{stage}.py", "a") as file:
        file.write("\nassert True\n")


# Each case needs a dry run and a copy of the project. The others use the same helpers.
FAST = ("prepare", "train", "eval", "bench_report")


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(stage, marks=[] if stage in FAST else [pytest.mark.slow])
        for stage in ADAPTERS
        if RERUNS[stage]
    ],
)
def test_editing_a_stages_code_reruns_it(project: Path, stage: str) -> None:
    edit_stage(project, stage)
    expected = dict(RERUNS[stage])
    if "prepare" in expected:
        expected["prepare"] += stage != "write_builtin"  # for the dataset `far`
    assert planned(project, PAGE, FAR) == expected


def test_editing_stages_that_the_report_does_not_need_reruns_nothing(project: Path) -> None:
    for stage in ADAPTERS:
        if not RERUNS[stage]:
            edit_stage(project, stage)
    assert planned(project, PAGE, FAR) == {}


@dataclass(frozen=True)
class Checkout:
    """A copy of this checkout, with each stage's code digest."""

    root: Path
    digests: dict[str, str]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    root = copy_checkout(tmp_path_factory.mktemp("edited"))
    return Checkout(root, digests(root))


def digests(root: Path, stages: Iterable[str] = tuple(ADAPTERS)) -> dict[str, str]:
    """Return the code digests of some stages in a checkout."""
    scripts = root / "workflow/scripts"
    return {s: code_digest(scripts / f"{s}.py", package=root / "nanogpt") for s in stages}


@pytest.fixture(scope="module")
def closures() -> dict[str, set[str]]:
    """Return the modules that each stage's digest covers."""
    return {stage: closure(adapter) for stage, adapter in ADAPTERS.items()}


@contextmanager
def edited(checkout: Checkout, modules: Iterable[str]) -> Iterator[None]:
    """Add a statement to some modules temporarily."""
    paths = [checkout.root.joinpath(*name.split(".")).with_suffix(".py") for name in modules]
    codes = [path.read_text() for path in paths]
    for path, code in zip(paths, codes, strict=True):
        path.write_text(f"{code}\nassert True\n")
    yield
    for path, code in zip(paths, codes, strict=True):
        path.write_text(code)


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(NEUTRAL)))
def test_editing_a_module_changes_the_digests_of_its_stages(
    checkout: Checkout, closures: dict[str, set[str]], module: str
) -> None:
    stage = next((stage for stage in ADAPTERS if module in closures[stage]), None)
    if stage is None:
        pytest.skip("no stage runs it")
    with edited(checkout, [module]):
        assert digests(checkout.root, [stage])[stage] != checkout.digests[stage]


def test_editing_a_module_changes_no_other_stages_digest(
    checkout: Checkout, closures: dict[str, set[str]]
) -> None:
    together: dict[frozenset[str], list[str]] = {}  # modules that are part of the same stages
    for module in set(MODULES) - set(NEUTRAL):
        stages = frozenset(stage for stage in ADAPTERS if module in closures[stage])
        together.setdefault(stages, []).append(module)
    for stages, modules in together.items():
        with edited(checkout, modules):
            now = digests(checkout.root)
        assert {stage for stage in ADAPTERS if now[stage] != checkout.digests[stage]} == stages


def test_editing_a_neutral_module_changes_no_digest(checkout: Checkout) -> None:
    with edited(checkout, sorted(set(NEUTRAL) & set(MODULES))):
        assert digests(checkout.root) == checkout.digests


# The stages that a package's code may be part of.
MAY_CHANGE = {
    "cli": set(),
    "interchange": FORMATS,
    "report": {"bench_report", "tensorboard"},
    "evaluation": {"eval", "bench"},
    "inference": {"sample", "eval", "bench"},
    "training": {"train", "bench"},
    "ngram": {"ngram", "count_ngrams", "eval", "sample"},
    "model": {*FORMATS, "train", "combine", "eval", "sample", "bench", "bench_report"},
}


@pytest.mark.parametrize("package", MAY_CHANGE)
def test_a_packages_code_is_only_in_stages_that_need_it(
    closures: dict[str, set[str]], package: str
) -> None:
    stages = {
        stage
        for stage, modules in closures.items()
        for module in modules - set(NEUTRAL)
        if module.startswith(f"nanogpt.{package}.")
    }
    assert stages == MAY_CHANGE[package]


def test_comments_and_docstrings_rerun_nothing(project: Path) -> None:
    edited = [*project.glob("nanogpt/**/*.py"), *project.glob("workflow/**/*.py")]
    edited += [project / "Snakefile", *project.glob("workflow/rules/*.smk")]
    assert len(edited) > 40
    for path in edited:
        path.write_text(f"# A comment.\n{path.read_text()}\n# And one at the end.\n")
    replacement("nanogpt/model/gpt.py", "Logits (B, T, V)", "The logits")(project)
    assert planned(project) == {}


def test_editing_a_rules_command_reruns_it(project: Path) -> None:
    replacement("workflow/rules/run.smk", "python ", "python -u ")(project)
    assert planned(project) == RETRAINING


def test_editing_the_model_reruns_the_stages_that_use_it(project: Path) -> None:
    with open(project / "nanogpt/model/gpt.py", "a") as file:
        file.write("\nassert True\n")
    assert planned(project) == REMODELLING
