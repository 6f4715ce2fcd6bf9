"""Plans of runs that don't exist yet, and their problems."""

import re
from pathlib import Path

import pytest
import torch

from nanogpt.config.loading import load
from nanogpt.config.schema import Config, ModelSettings
from nanogpt.model.sizing import flops_per_token, n_parameters
from nanogpt.planning import plan as planning
from nanogpt.planning.machine import GPUS, UTILISATION
from nanogpt.planning.plan import Plan, in_bytes, make_plan
from nanogpt.planning.plan_page import plan_as_json, plan_page
from nanogpt.project import Project

TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "dropout": 0.0}
SMALL = {"max_iters": 100, "batch_size": 4, "gradient_accumulation_steps": 3, "warmup_iters": 10}
CONFIG = {
    "corpora": {"play": {"builtin": "play", "n_characters": 10_000}},
    "datasets": {"play": {"tokenizer": "byte"}},
    "defaults": {"model": TINY, "train": {**SMALL, "device": "cpu"}},
    "runs": {
        "one": {"dataset": "play"},
        "two": {"dataset": "play", "train": {"seed": 2}},
        "exact": {"dataset": "play", "train": {"dtype": "float32"}},
        "both": {"ensemble": ["one", "two"]},
        "far": {
            "dataset": "play",
            "train": {"device": "cuda:99"},
            "sample": {"device": "cuda:99"},
        },
        "apple": {"dataset": "play", "train": {"device": "mps"}},
        "huge": {
            "dataset": "play",
            "model": {"n_layer": 8, "n_head": 64, "n_embd": 4096, "block_size": 4096},
            "train": {"batch_size": 4096},
        },
    },
}


@pytest.fixture
def config() -> Config:
    return load(CONFIG)


def plan(config: Config, run: str, directory: Path, *, measure: bool = False) -> Plan:
    return make_plan(config, run, Project(directory), measure=measure)


def test_plan_agrees_with_the_model(config: Config, tmp_path: Path) -> None:
    made = plan(config, "one", tmp_path)
    model = ModelSettings.model_validate(TINY)
    assert made.parameters.total == n_parameters(model, 256)
    assert made.training
    assert made.training.flops_per_token == flops_per_token(model, 256)
    assert made.training.tokens_per_step == 4 * 3 * 16
    assert made.training.tokens == 100 * 4 * 3 * 16
    assert made.training.flops == made.training.tokens * made.training.flops_per_token
    assert made.training.epochs == made.training.tokens / 9000
    assert made.disk.model == 4 * made.parameters.total
    assert not made.problem
    assert not list(tmp_path.iterdir()), "a plan makes nothing"


def test_plan_measures_a_step(config: Config, tmp_path: Path) -> None:
    training = plan(config, "one", tmp_path, measure=True).training
    assert training
    assert training.pace
    assert training.pace.is_measured
    assert training.hours
    assert training.hours >= 100 * training.pace.step_seconds / 3600


def test_plan_without_measurement_has_no_time_here(config: Config, tmp_path: Path) -> None:
    made = plan(config, "one", tmp_path)
    assert made.training
    assert made.training.hours is None
    assert any("not measured" in line for line in plan_page(made))


def test_gpu_times_use_16_bit_rates(config: Config, tmp_path: Path) -> None:
    training = plan(config, "one", tmp_path).training
    assert training
    assert [gpu.name for gpu in training.gpus] == [gpu.name for gpu in GPUS]
    slowest = training.gpus[0].hours * 3600 * UTILISATION * GPUS[0].flops_per_second
    assert slowest >= training.flops
    exact = plan(config, "exact", tmp_path).training
    assert exact
    assert exact.gpus == ()


def test_run_for_a_missing_device_can_be_planned(config: Config, tmp_path: Path) -> None:
    made = plan(config, "far", tmp_path, measure=True)
    training, here = made.training, plan(config, "one", tmp_path).training
    assert training
    assert here
    assert (training.device, training.dtype) == ("cuda:99", "bfloat16")
    assert training.flops == here.flops
    assert training.gpus == here.gpus
    assert training.pace is None
    assert made.limit is None
    assert not made.problem
    page = plan_page(made)
    (line,) = (line for line in page if line.startswith("time here"))
    assert re.fullmatch(
        r"time here +not measured: device cuda:99: this machine has .* CUDA devices?", line
    )
    assert any(line.startswith("                  T4 ") for line in page)
    assert max(map(len, page)) <= 100


def test_best_weights_need_no_memory_of_a_gpu(config: Config, tmp_path: Path) -> None:
    """Rank 0 keeps them in main memory. A saved state has them too."""
    far, here = plan(config, "far", tmp_path), plan(config, "one", tmp_path)
    assert far.training
    assert here.training
    assert here.training.memory.kept == 4 * here.parameters.total
    assert far.training.memory.kept == 0
    assert far.disk.state == here.disk.state
    assert any("best weights" in line for line in plan_page(here))
    assert not any("best weights" in line for line in plan_page(far))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="the device is here")
def test_mps_run_can_be_planned_on_another_machine(config: Config, tmp_path: Path) -> None:
    made = plan(config, "apple", tmp_path)
    assert made.training
    assert made.training.dtype == "float32"
    assert made.training.missing == "device mps: this machine has no MPS device"


def test_plan_of_an_ensemble_has_no_training(config: Config, tmp_path: Path) -> None:
    made = plan(config, "both", tmp_path)
    one = plan(config, "one", tmp_path)
    assert made.training is None
    assert made.parameters.total == 2 * one.parameters.total
    assert made.disk.states == 0
    assert "an ensemble of 2 runs, which isn't trained" in plan_page(made)[0]


def test_too_little_memory_is_a_problem_with_advice(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "memory_limit", lambda _: 1000 * 10**9)
    monkeypatch.setattr(planning, "free_disk", lambda _: 10**15)
    made = plan(config, "huge", tmp_path, measure=True)
    assert made.problem.startswith("huge: training needs about ")
    assert "this machine has 1.0 TB; set train.batch_size: " in made.problem
    assert made.training
    assert made.training.pace
    assert not made.training.pace.is_measured, "a run that can't fit isn't tried"
    monkeypatch.setattr(planning, "memory_limit", lambda _: 10**9)
    assert plan(config, "huge", tmp_path).problem.endswith("; lower n_layer or n_embd")


def test_too_little_disk_space_is_a_problem(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_disk", lambda _: 1000)
    problem = plan(config, "one", tmp_path).problem
    assert "of disk space, but 1.0 kB is free" in problem


def test_an_interrupted_dataset_still_needs_disk_space(config: Config, tmp_path: Path) -> None:
    needed = plan(config, "one", tmp_path).disk.needed
    dataset = tmp_path / "results/datasets/play"
    (dataset / "groups").mkdir(parents=True)
    (dataset / "groups/plan.log").write_text("started")
    assert plan(config, "one", tmp_path).disk.needed == needed
    (dataset / "train.000.bin").write_bytes(bytes(1000))
    assert plan(config, "one", tmp_path).disk.needed == needed - 1000
    (dataset / "val.000.bin").write_bytes(bytes(10**6))  # made from a larger text
    assert plan(config, "one", tmp_path).disk.needed == needed - 20_000


def test_little_free_memory_is_a_warning(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda: 10**6)
    made = plan(config, "one", tmp_path)
    assert not made.problem
    (warning,) = made.warnings
    assert "only 1.0 MB is free now" in warning


def test_page_is_aligned_and_fits_a_terminal(config: Config, tmp_path: Path) -> None:
    for run in ("one", "both", "huge"):
        lines = plan_page(plan(config, run, tmp_path))
        assert max(map(len, lines)) <= 100
        assert all(line[:18].endswith(" ") for line in lines[2:])


def test_json_has_the_sums(config: Config, tmp_path: Path) -> None:
    made = plan(config, "one", tmp_path)
    content = plan_as_json(made)
    assert content["parameters"]["total"] == made.parameters.total  # type: ignore[call-overload, index]


def test_bytes_are_formatted() -> None:
    written = [in_bytes(n) for n in (12, 1234, 43_000_000, 9_960_000_000, 58e12)]
    assert written == ["12 bytes", "1.2 kB", "43 MB", "10.0 GB", "58 TB"]
