"""`reproducible: anywhere`: the same weights, evaluation and samples on all CPUs with AVX2."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
GOLDEN = json.loads(Path(__file__).with_name("golden_anywhere.json").read_text())

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="anywhere means: on any x86-64 CPU"
)


@pytest.fixture
def digests(play, tmp_path):
    """Return a function from recipe, steps, threads and environment to digests by file."""

    def run(recipe, steps, threads, *, name=None, last=None, **environment):
        results = tmp_path / (name or f"{recipe}-{threads}-{len(environment)}")
        command = [sys.executable, "-m", "tests.anywhere", play, results, recipe, steps, threads]
        command += [last] if last else []
        done = subprocess.run(
            list(map(str, command)),
            cwd=PROJECT,
            # More threads than processors would wait in loops.
            env={**os.environ, "GOMP_SPINCOUNT": "100", **environment},
            capture_output=True,
            text=True,
        )
        if "needs an x86-64 CPU with AVX2" in done.stderr:
            pytest.skip("this CPU has no AVX2")
        if last:
            assert done.returncode == 128 + signal.SIGTERM, done.stderr
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("recipe", [pytest.param("gpt2", marks=pytest.mark.slow), "modern"])
def test_threads_and_instructions_change_no_byte(digests, recipe):
    # Simulates a CPU without AVX-512, as far as possible.
    others = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
    assert digests(recipe, 20, 3, **others) == digests(recipe, 20, 1)


@pytest.mark.slow
def test_fine_tuned_model_is_the_same_everywhere(digests):
    assert digests("finetuned", 8, 3) == digests("finetuned", 8, 1)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["gpt2", "modern"])
def test_no_operator_differs_between_processors(digests, recipe):
    assert digests(recipe, 4, 1, ANYWHERE_THOROUGH="yes")


@pytest.mark.slow
def test_training_can_resume_with_other_threads(digests):
    digests("modern", 20, 1, name="stopped", last=7)
    assert digests("modern", 20, 2, name="stopped") == digests("modern", 20, 1)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["gpt2", "modern"])
@pytest.mark.parametrize("threads", [1, 5])
def test_200_steps_give_the_same_bytes_as_on_other_machines(digests, recipe, threads):
    found = digests(recipe, 200, threads)
    assert {name: found[name] for name in GOLDEN[recipe]} == GOLDEN[recipe]


def python(*lines):
    """Run lines of Python in a new process."""
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


def test_machine_with_different_bits_is_an_error():
    done = python(
        "from nanogpt.model import alike",
        "alike.DIGESTS['product'] = 'another'",
        "alike.use()",
    )
    if "needs an x86-64 CPU with AVX2" in done.stderr:
        pytest.skip("this CPU has no AVX2")
    assert "this machine's results differ from those of others (in: product)" in done.stderr


def test_process_cannot_switch_between_machine_and_anywhere():
    done = python(
        "from nanogpt.model.kernels import prepare_kernels",
        "prepare_kernels('anywhere')",
        "prepare_kernels('machine')",
    )
    if "needs an x86-64 CPU with AVX2" in done.stderr:
        pytest.skip("this CPU has no AVX2")
    assert "this process already computes with `reproducible: anywhere`" in done.stderr


def test_torch_that_already_computed_is_an_error():
    done = python(
        "import torch; torch.ones(3).sum()",
        "if torch.backends.cpu.get_cpu_capability() == 'AVX2': raise SystemExit(3)",
        "from nanogpt.model import alike",
        "alike.use()",
    )
    if done.returncode == 3:
        pytest.skip("torch computes for AVX2 here anyway")
    assert "torch has already computed something in this process" in done.stderr
