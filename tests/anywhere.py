"""A run with `reproducible: anywhere`, for a test to start in a process of its own.

    python -m tests.anywhere DATASET RESULTS RECIPE STEPS THREADS [LAST]

LAST: the step after which it's stopped, to go on at the next call.

Prints the loss, and the sha256 of the weights, of eval.json and of samples.txt, as JSON.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import torch

from nanogpt.artifacts.states import TrainingState
from nanogpt.config.schema import EvalSettings, ModelSettings, SampleSettings, TrainSettings
from nanogpt.devices import resolve
from nanogpt.evaluation.evaluate import evaluate
from nanogpt.inference.sampling import sample
from nanogpt.training.loop import train
from nanogpt.training.session import Session
from tests.recipes import MODERN

ANYWHERE = {"reproducible": "anywhere"}
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 48, "dropout": 0.1}
MODELS = {
    "gpt2": ModelSettings(**SHAPE),
    "modern": ModelSettings(**SHAPE, **MODERN, init="zero_proj"),
}
OPTIMIZERS = {
    "gpt2": {"learning_rate": 3e-3, "min_lr": 3e-4},
    "modern": {"optimizer": "muon", "lr_schedule": "wsd", "min_lr": 0},
}


def stop_after(last: int) -> None:
    """Send this process SIGTERM after a step, as a cluster would."""
    make_step = Session.step

    def step(session: Session) -> None:
        make_step(session)
        if session.progress.step == last:
            os.kill(os.getpid(), signal.SIGTERM)

    Session.step = step  # type: ignore[method-assign]


def main(dataset: Path, results: Path, recipe: str, steps: int) -> dict[str, str | float]:
    """Train, evaluate and sample; the loss and the digests of what it made."""
    settings = TrainSettings(
        **ANYWHERE,
        **OPTIMIZERS[recipe],
        max_iters=steps,
        lr_decay_iters=steps,
        warmup_iters=steps // 10,
        batch_size=8,
        eval_interval=max(1, steps // 2),
        eval_iters=2,
    )
    state = TrainingState(results / "state", "anywhere")
    train("anywhere", dataset, MODELS[recipe], resolve(settings), state, results)
    read = resolve(EvalSettings(**ANYWHERE, eval_iters=2))
    evaluation = evaluate("anywhere", dataset, results / "model", read, results / "eval.json")
    drawn = resolve(SampleSettings(**ANYWHERE, num_samples=2, max_new_tokens=100))
    sample("anywhere", results / "model", drawn, results / "samples.txt")
    digests = {
        name: hashlib.sha256((results / name).read_bytes()).hexdigest()
        for name in ("model/model.safetensors", "eval.json", "samples.txt")
    }
    return {"loss": evaluation.val.loss, **digests}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[5]))
    if len(sys.argv) > 6:
        stop_after(int(sys.argv[6]))
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
