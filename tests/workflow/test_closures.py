"""The code digest of a stage covers every module that a real run of the stage loads."""

import pytest

from nanogpt.artifacts.code_digest import NEUTRAL, closure
from tests.checkouts import MIRROR, PROJECT
from tests.workflow.projects import Computed

ADAPTERS = {path.stem: path for path in sorted((PROJECT / "workflow/scripts").glob("*.py"))}

# Modules that a digest covers although this run didn't load them, each with the reason.
NOT_LOADED: dict[tuple[str, str], str] = {}


# Modules for the check before a training, which decides if it starts but doesn't affect its result.
PROMPTS = PROJECT / "nanogpt/inference/prompts.py"
CHECKS = {"train": {*closure(PROMPTS), "nanogpt.inference.prompts"}}


@pytest.fixture(scope="module")
def loaded(computed: Computed) -> dict[str, set[str]]:
    """The modules of this package that each stage had loaded, in a real run of all stages."""
    modules = computed.loaded_modules()
    return {stage: modules[stage] for stage in ADAPTERS if stage in modules}


def test_every_stage_has_run(loaded: dict[str, set[str]]) -> None:
    without_mirror = set() if MIRROR else {"download_gpt2"}
    assert set(loaded) == set(ADAPTERS) - without_mirror


@pytest.mark.parametrize("stage", ADAPTERS)
def test_every_loaded_module_is_in_the_stages_digest_or_neutral(
    loaded: dict[str, set[str]], stage: str
) -> None:
    if stage not in loaded:
        pytest.skip("NANOGPT_MIRROR is not set: GPT-2's merges can't be downloaded here")
    print(f"{stage}:", *sorted(closure(ADAPTERS[stage]) - set(NEUTRAL)))
    packages = {name for name in loaded[stage] if _is_package(name)}
    covered = closure(ADAPTERS[stage]) | set(NEUTRAL) | CHECKS.get(stage, set())
    assert loaded[stage] - covered - packages == set()


@pytest.mark.parametrize("stage", ADAPTERS)
def test_every_module_in_a_digest_runs_or_has_a_reason(
    loaded: dict[str, set[str]], stage: str
) -> None:
    if stage not in loaded:
        pytest.skip("NANOGPT_MIRROR is not set: GPT-2's merges can't be downloaded here")
    unused = closure(ADAPTERS[stage]) - loaded[stage] - set(NEUTRAL)
    explained = {module for of_stage, module in NOT_LOADED if of_stage == stage}
    assert unused == explained


def _is_package(module: str) -> bool:
    """Whether a module is a package. test_layout.py checks that packages have only a docstring."""
    return (PROJECT.joinpath(*module.split(".")) / "__init__.py").exists()


def test_training_depends_on_no_report_page_command_or_evaluation() -> None:
    modules = {m for m in closure(ADAPTERS["train"]) - set(NEUTRAL) if not _is_package(m)}
    packages = {name.split(".")[1] for name in modules if "." in name}
    assert not packages & {"report", "web", "cli", "evaluation", "interchange", "inference"}
