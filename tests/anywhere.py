"""Train a run with `reproducible: anywhere`. Tests start this in a new process.

    python -m tests.anywhere DATASET RESULTS RECIPE STEPS THREADS [LAST]

LAST: the step after which it's stopped, to go on at the next call.

Prints the loss, and the sha256 of the weights, of eval.json and of samples.txt, as JSON. With
ANYWHERE_THOROUGH set, these two also of the model averaged with itself and mixed with n-grams; and
an operator that CPUs compute differently ends it.
"""

import hashlib
import json
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nanogpt.artifacts.states import TrainingState
from nanogpt.config.schema import (
    EvalSettings,
    ModelSettings,
    NgramSettings,
    SampleSettings,
    TrainSettings,
)
from nanogpt.devices import resolve
from nanogpt.evaluation import reading
from nanogpt.evaluation.evaluate import evaluate
from nanogpt.inference.sampling import sample
from nanogpt.model.checkpoints import save_ensemble
from nanogpt.ngram.counts import count_split
from nanogpt.ngram.mixing import find_ngrams
from nanogpt.project import NGRAMS_FILE
from nanogpt.training.loop import train
from nanogpt.training.session import Session
from tests.recipes import MODERN

THOROUGH = "ANYWHERE_THOROUGH" in os.environ
ANYWHERE = {"reproducible": "anywhere"}
# Sizes that torch splits over threads, and that aren't multiples of any vector width.
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 76, "block_size": 51, "dropout": 0.1}
MODELS = {
    "gpt2": ModelSettings(**SHAPE, bias=True),
    "modern": ModelSettings(**SHAPE, **MODERN, init="zero_proj"),
    "finetuned": ModelSettings(**{**SHAPE, "block_size": 40}, bias=True),
}
# Initial models of recipes, trained for a few steps first.
BEGINS_WITH = {"finetuned": "gpt2"}
OPTIMIZERS = {
    "gpt2": {"learning_rate": 3e-3, "min_lr": 3e-4},
    "modern": {"optimizer": "muon", "lr_schedule": "wsd", "min_lr": 0},
    "finetuned": {"learning_rate": 3e-3, "min_lr": 3e-4},
}


# These use MKL, or sum in an order that depends on the CPU or the threads.
DIFFERENT = {
    "exp",
    "exp2",
    "log",
    "log2",
    "tanh",
    "erf",
    "sin",
    "cos",
    "_softmax",
    "_log_softmax",
    "logsumexp",
    "mm",
    "bmm",
    "addmm",
    "addbmm",
    "baddbmm",
    "dot",
    "mv",
    "native_layer_norm",
    "native_layer_norm_backward",
    "gelu",
    "multinomial",
    "nll_loss_forward",
    "_scaled_dot_product_flash_attention_for_cpu",
    "linear",
    "matmul",
}


class OnlyAlike(TorchDispatchMode):
    """Raises an error for the operators of DIFFERENT on float32 tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.name().partition("::")[2].partition(".")[0].rstrip("_")
        floats = any(isinstance(a, torch.Tensor) and a.dtype == torch.float32 for a in args)
        assert not (floats and name in DIFFERENT), f"{func.name()} is used"
        return func(*args, **(kwargs or {}))


def stop_after(last: int) -> None:
    """Send SIGTERM to this process after a step, as a cluster would."""
    make_step = Session.step

    def step(session: Session) -> None:
        make_step(session)
        if session.progress.step == last:
            os.kill(os.getpid(), signal.SIGTERM)

    Session.step = step  # type: ignore[method-assign]


def main(dataset: Path, results: Path, recipe: str, steps: int) -> dict[str, str | float]:
    """Train, evaluate and sample. Returns the loss and the digests of the outputs."""
    settings = TrainSettings(
        **ANYWHERE,
        **OPTIMIZERS[recipe],
        max_iters=steps,
        lr_decay_iters=steps,
        warmup_iters=steps // 10,
        batch_size=9,
        eval_interval=max(1, steps // 2),
        eval_iters=2,
    )
    state = TrainingState(results / "state", "anywhere")
    initial = None
    if recipe in BEGINS_WITH:
        initial = results / "first/model"
        first = TrainingState(results / "first/state", "first")
        model, few = MODELS[BEGINS_WITH[recipe]], settings.model_copy(update={"max_iters": 3})
        train("first", dataset, model, resolve(few), first, results / "first")
    train("anywhere", dataset, MODELS[recipe], resolve(settings), state, results, initial)
    read = resolve(EvalSettings(**ANYWHERE, eval_iters=2))
    evaluation = evaluate("anywhere", dataset, results / "model", read, results / "eval.json")
    drawn = resolve(SampleSettings(**ANYWHERE, num_samples=2, max_new_tokens=100))
    sample("anywhere", results / "model", drawn, results / "samples.txt")
    made = ["model/model.safetensors", "eval.json", "samples.txt"]
    if THOROUGH:
        save_ensemble(results / "both", [results / "model", results / "model"])
        counts = results / "both" / NGRAMS_FILE
        count_split(dataset, NgramSettings(max_order=4), counts)
        evaluate("both", dataset, results / "both", read, results / "eval_both.json", counts)
        ngrams = find_ngrams(results / "both")
        sample("both", results / "both", drawn, results / "samples_both.txt", ngrams)
        made += ["eval_both.json", "samples_both.txt"]
    digests = {name: hashlib.sha256((results / name).read_bytes()).hexdigest() for name in made}
    return {"loss": evaluation.val.loss, **digests}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[5]))
    if len(sys.argv) > 6:
        stop_after(int(sys.argv[6]))
    checks: AbstractContextManager[object] = nullcontext()
    if THOROUGH:
        # A torch mode only applies to one thread.
        reading._in_threads = lambda read, pieces, _: map(read, pieces)  # type: ignore[assignment]
        checks = OnlyAlike()
    with checks:
        made = main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    print(json.dumps(made))
