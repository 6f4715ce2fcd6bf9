"""Trainings that can't start or can't continue."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nanogpt.artifacts.records.manifests import TrainingRequest
from nanogpt.artifacts.stages import logged
from nanogpt.artifacts.states import hold
from nanogpt.errors import UserError
from nanogpt.files import locks
from nanogpt.model import alike, kernels
from nanogpt.model.gpt import GPT
from nanogpt.project import HERE
from nanogpt.training.saved_state import Progress, save_state
from tests.mistakes.base import Mistake, code, in_turn
from tests.mistakes.materials import TINY, make_dataset, train_first
from tests.mistakes.prompts import prompt


def save_often() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOGPT_SAVE_INTERVAL", "often")
        train_first()


def multiply_by_mkl() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_matmul", None)
        patch.setenv("NANOGPT_MATMUL", "mkl")
        train_first()


def compute_anywhere(capability: str) -> None:
    """Train `reproducible: anywhere` on a CPU with a capability and different products."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        patch.setattr(alike, "_on", False)
        patch.setattr(alike, "DIGESTS", {**alike.digests(), "product": "another"})
        patch.setenv("ATEN_CPU_CAPABILITY", "avx2")  # given back at the end
        train_first(reproducible="anywhere")


def take_another_models_state() -> None:
    model = GPT(TINY.model_copy(update={"n_embd": 8}), vocab_size=3)
    Path("state").mkdir()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    save_state(Path("state"), Progress("v", step=1), model, optimizer, scaler)
    try:
        train_first()
    except UserError as error:
        raise UserError(re.sub(r"\.[0-9a-f]{16}\.", ".DIGEST.", str(error))) from None


def be_taken_over() -> None:
    with locks.hold(Path("state"), "which sleeps") as lock:
        Path("state/lock.2").write_text("{}")
        lock.check()


def claim_a_trained_run() -> None:
    request = TrainingRequest(
        stage="train",
        version="0123456789ab",
        inputs={},
        parameters={},
        code="",
        run="first",
        settings={},
    )
    with hold(HERE, request) as training:
        (HERE.claims / "first").write_text("another version")
        training.check_owner()


def without_compiler() -> None:
    make_dataset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        patch.delenv("CXX", raising=False)
        train_first(compile=True)


def as_a_job(work: Callable[[], object]) -> Callable[[], None]:
    """Do some work as a job of the workflow would, with a log."""

    def make() -> None:
        package = logging.getLogger("nanogpt")
        before, level = list(package.handlers), package.level
        try:
            job = SimpleNamespace(input=[], output=[], log=["results/first/logs/train.log"])
            with logged(job, "train"):
                work()
        finally:
            package.setLevel(level)
            for handler in set(package.handlers) - set(before):
                package.removeHandler(handler)
                handler.close()

    return make


TRAINING = [
    prompt(
        "a missing GPU",
        "--device cuda",
        "device cuda: this machine has no CUDA device; set device to auto or cpu",
        is_impossible=torch.cuda.is_available,
    ),
    prompt(
        "an Apple GPU that isn't there",
        "--device mps",
        "device mps: this machine has no MPS device; set device to auto or cpu",
        is_impossible=torch.backends.mps.is_available,
    ),
    prompt(
        "an unknown device in a command",
        "--device gpu",
        "--device: should be auto, cpu, mps, cuda or cuda:N (found `gpu`)",
    ),
    Mistake(
        "a training that diverges",
        code("train: {learning_rate: 1e30, decay_lr: no}"),
        in_turn(make_dataset, lambda: train_first(learning_rate=1e30)),
        "training diverged: train_loss is nan at step 1; lower `learning_rate`, raise "
        "`warmup_iters`, or set `grad_clip`",
    ),
    Mistake(
        "a word for a number of seconds",
        code("NANOGPT_SAVE_INTERVAL=often snakemake ..."),
        in_turn(make_dataset, save_often),
        "NANOGPT_SAVE_INTERVAL: should be a number of seconds, such as 60 (found `often`)",
    ),
    Mistake(
        "an unknown kernel for matrix products",
        code("NANOGPT_MATMUL=mkl snakemake ..."),
        in_turn(make_dataset, multiply_by_mkl),
        "NANOGPT_MATMUL: unknown value `mkl`; use `torch` or `onednn`",
    ),
    Mistake(
        "`reproducible: anywhere` on a CPU without AVX2",
        code("snakemake ..."),
        in_turn(make_dataset, lambda: compute_anywhere("DEFAULT")),
        "`reproducible: anywhere`: needs an x86-64 CPU with AVX2 and a torch with oneDNN, but "
        "torch computes for DEFAULT here; set `reproducible: machine`",
    ),
    Mistake(
        "`reproducible: anywhere` on a machine with different results",
        code("snakemake ..."),
        in_turn(make_dataset, lambda: compute_anywhere("AVX2")),
        "`reproducible: anywhere`: this machine's results differ from those of others (in: "
        "product); set `reproducible: machine`, and please open an issue with your CPU and torch "
        "version",
    ),
    Mistake(
        "another model's saved state",
        "a file of `.nanogpt/state/` copied from another training",
        in_turn(make_dataset, take_another_models_state),
        "state/step-1.DIGEST.safetensors: from a different model or version of nanogpt; remove "
        "state to train from scratch",
    ),
    Mistake(
        "a suspended training that another process took over",
        "a laptop is closed, and another machine on the shared disk continues its training",
        be_taken_over,
        "state: another process took over this work while this one was suspended, or the "
        "directory was removed; stopping",
    ),
    Mistake(
        "two processes training one run with different settings",
        "`config.yaml` edited and the run started again while its old training still runs",
        claim_a_trained_run,
        "first: another process has started to train this run with different settings or code; "
        "stopping",
    ),
    Mistake(
        "no C++ compiler",
        "`train: {compile: yes}` on a machine without a C++ compiler",
        without_compiler,
        "train.compile: torch.compile needs a C++ compiler on a CPU, and found none (g++, "
        "clang++ or $CXX); install one, or set `compile: false`",
    ),
    Mistake(
        "too little memory",
        code("model: {n_embd: 10000000000000}"),
        as_a_job(
            in_turn(make_dataset, lambda: train_first(TINY.model_copy(update={"n_embd": 10**13})))
        ),
        "out of memory; lower batch_size (and raise gradient_accumulation_steps to "
        "match), block_size or the model's size",
    ),
    Mistake(
        "a full disk",
        "no space left for the results",
        as_a_job(lambda: Path("/dev/full").write_text("text")),
        "disk full while writing a result; free some space",
        lambda: not Path("/dev/full").exists(),
    ),
]
