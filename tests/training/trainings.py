"""Run a training in a test's directory, and read its results."""

import json
import os
import shutil

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from nanogpt.artifacts.states import TrainingState
from nanogpt.config.schema import TrainSettings
from nanogpt.training.loop import train

TIMES = {"seconds", "tokens_per_second"}  # these may differ between equal runs

BASE = TrainSettings(
    max_iters=60,
    batch_size=8,
    learning_rate=3e-3,
    min_lr=3e-4,
    warmup_iters=5,
    eval_interval=20,
    eval_iters=5,
    log_interval=10,
    seed=1337,
    device="cpu",
    dtype="float32",
)
CONSTANT = {"decay_lr": False, "warmup_iters": 0}
DIVERGES = {**CONSTANT, "learning_rate": 1e6, "max_iters": 10, "log_interval": 1}


class Training:
    """A directory to train a model in."""

    def __init__(self, root):
        self.state = root / "state"
        self.results = root / "results"
        self.model_directory = self.results / "model"

    def run(self, dataset, model_settings, *, version="v", initial=None, **changes):
        checks = {
            name: changes.pop(name) for name in {"check_lock", "check_owner"} & changes.keys()
        }
        settings = TrainSettings.model_validate(BASE.model_dump() | changes)
        state = TrainingState(self.state, version, **checks)
        done = train("tiny", dataset, model_settings, settings, state, self.results, initial)
        self.layouts = done.layouts
        shutil.rmtree(self.state)
        return self

    @property
    def metrics(self):
        return read_metrics(self.results / "metrics.jsonl")

    @property
    def weights(self):
        return load_file(self.model_directory / "model.safetensors")

    @property
    def weight_bytes(self):
        return (self.model_directory / "model.safetensors").read_bytes()


def read_metrics(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def without_times(metrics):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in metrics]


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def assert_same(training, wanted):
    for path in sorted(wanted.results.rglob("*")):
        mine = training.results / path.relative_to(wanted.results)
        if path.name == "metrics.jsonl":
            assert without_times(read_metrics(mine)) == without_times(read_metrics(path))
        elif path.is_file():
            assert mine.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in training.results.rglob("*")) == sorted(
        p.name for p in wanted.results.rglob("*")
    )


@torch.no_grad()
def split_loss(model, tokens):
    """Return the mean loss over all full windows of a split, computed in one pass."""
    T = model.settings.block_size
    n = (len(tokens) - 1) // T
    ids = torch.from_numpy(np.array(tokens, dtype=np.int64))
    logits = model.eval()(ids[: n * T].view(n, T))
    return F.cross_entropy(logits.double().flatten(0, 1), ids[1 : n * T + 1]).item()
