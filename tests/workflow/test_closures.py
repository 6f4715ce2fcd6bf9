"""The code digest of a stage covers every module that a real run of the stage loads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nanogpt.artifacts.code_digest import NEUTRAL, closure
from tests.workflow.conftest import MIRROR, PROJECT

ADAPTERS = {path.stem: path for path in sorted((PROJECT / "workflow/scripts").glob("*.py"))}

# Python runs it at the start of every process that has its directory on the path.
WATCH = """
import atexit, json, os, sys

def leave():
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    stage = name.removesuffix(".py").rpartition(".")[2]
    loaded = sorted(m for m in sys.modules if m.split(".")[0] == "nanogpt")
    with open(os.path.join({directory!r}, f"{{stage}}.{{os.getpid()}}.json"), "w") as file:
        json.dump(loaded, file)

atexit.register(leave)
"""

CONFIG = {
    "corpora": {
        "play": {"builtin": "play", "n_characters": 8000},
        "far": {"url": "http://corpora.example/far.txt"},
        "many": {"files": "texts"},
    },
    "datasets": {"play": {}, "far": {}, "many": {"tokenizer": "bpe", "vocab_size": 270}},
    "models": {"tiny": {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 16}},
    "defaults": {
        "model": "tiny",
        "train": {"max_iters": 4, "warmup_iters": 1, "batch_size": 2, "eval_iters": 1},
        "eval": {"eval_iters": 1},
        "sample": {"num_samples": 1, "max_new_tokens": 5},
        "bench": {"burn_in": 0, "steps": 1},
    },
    "runs": {"one": {"dataset": "play"}},
    "report": {"runs": ["one"]},
}
TARGETS = [
    "results/report/index.html",
    "results/datasets/far/meta.json",
    "results/datasets/many/meta.json",
]

# Modules that a digest covers though this run didn't load them, each with the reason.
NOT_LOADED: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The modules of ours that each stage had loaded at its end, in a real run of all stages."""
    root = tmp_path_factory.mktemp("closures")
    project, watched, mirror = root / "checkout", root / "watched", root / "mirror"
    for name in ("nanogpt", "workflow", "profiles", "envs"):
        shutil.copytree(
            PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(PROJECT / "Snakefile", project)
    (project / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (project / "texts").mkdir()
    for number in range(2):
        (project / f"texts/{number}.txt").write_text("It was a bright cold day in April.\n" * 40)
    (mirror / "corpora.example").mkdir(parents=True)
    (mirror / "corpora.example/far.txt").write_text("The clocks were striking thirteen.\n" * 40)
    targets = list(TARGETS)
    if MIRROR:
        files = "openaipublic.blob.core.windows.net"
        (mirror / files).symlink_to(Path(MIRROR) / files)
        targets.append("resources/tokenizers/gpt2/vocab.bpe")
    (root / "site").mkdir()
    watched.mkdir()
    (root / "site/sitecustomize.py").write_text(WATCH.format(directory=str(watched)))
    own = {k: v for k, v in os.environ.items() if not k.startswith(("NANOGPT_", "PYTHONPATH"))}
    own |= {"PYTHONPATH": str(root / "site"), "NANOGPT_CACHE": "off"}
    own["NANOGPT_MIRROR"] = str(mirror)
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *targets],
        cwd=project,
        env=own,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, set[str]] = {}
    for path in watched.glob("*.json"):
        stage = path.name.split(".")[0]
        found.setdefault(stage, set()).update(json.loads(path.read_text()))
    return {stage: modules for stage, modules in found.items() if stage in ADAPTERS}


def test_every_stage_ran(loaded: dict[str, set[str]]) -> None:
    without_mirror = set() if MIRROR else {"download_gpt2"}
    assert set(loaded) == set(ADAPTERS) - without_mirror


@pytest.mark.parametrize("stage", ADAPTERS)
def test_every_module_that_a_stage_loads_is_in_its_digest_or_neutral(
    loaded: dict[str, set[str]], stage: str
) -> None:
    if stage not in loaded:
        pytest.skip("NANOGPT_MIRROR is not set: GPT-2's merges can't be downloaded here")
    print(f"{stage}:", *sorted(closure(ADAPTERS[stage]) - set(NEUTRAL)))
    packages = {name for name in loaded[stage] if _is_package(name)}
    assert loaded[stage] - closure(ADAPTERS[stage]) - set(NEUTRAL) - packages == set()


@pytest.mark.parametrize("stage", ADAPTERS)
def test_a_digest_covers_only_what_runs_or_says_why(
    loaded: dict[str, set[str]], stage: str
) -> None:
    if stage not in loaded:
        pytest.skip("NANOGPT_MIRROR is not set: GPT-2's merges can't be downloaded here")
    unused = closure(ADAPTERS[stage]) - loaded[stage] - set(NEUTRAL)
    explained = {module for of_stage, module in NOT_LOADED if of_stage == stage}
    assert unused == explained


def _is_package(module: str) -> bool:
    """Whether a module is a package; a test of the layout holds that it has only a docstring."""
    return (PROJECT.joinpath(*module.split(".")) / "__init__.py").exists()


def test_training_depends_on_no_report_page_command_or_evaluation() -> None:
    packages = {name.split(".")[1] for name in closure(ADAPTERS["train"]) if "." in name}
    assert not packages & {"report", "web", "cli", "evaluation", "interchange", "inference"}
