"""Compare training on one GPU with nanoGPT; called by `benchmarks/gpu.sh`.

    python benchmarks/gpu.py PATH_OF_A_NANOGPT_CHECKOUT [--device cuda] [--tiny]

1. Seconds from the start of the process, and loss, of nanoGPT's train_shakespeare_char (unchanged),
   our `shakespeare_char_baby` (the same model) and our `shakespeare_char_best` (the modern recipe).
2. Time of a step of the baby GPT and of GPT-2 124M, compiled, for both programs.

--tiny makes only a few steps of each, to check that everything runs.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks import processes, train_step  # noqa: E402
from benchmarks.peer import copy_with_data  # noqa: E402
from benchmarks.train import DATASETS, Row, table, train_ours, train_peer  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402

CONFIG = read(PROJECT / "config.yaml")
THREADS = 4  # on the host
SEED = 1337
TINY_STEPS = 3


def train_all(checkout: Path, device: str, tiny: bool) -> list[Row]:
    """Run the three trainings."""
    arguments = ["config/train_shakespeare_char.py", f"--device={device}", "--log_interval=1"]
    changes = {"device": device, "dtype": "auto", "compile": not tiny}  # nanoGPT compiles too
    steps = None
    if tiny:
        steps = TINY_STEPS
        arguments += ["--compile=False", f"--max_iters={steps}", "--eval_iters=1"]
        arguments += [f"--eval_interval={steps}", "--batch_size=2"]
        changes |= {"batch_size": 2, "eval_iters": 1, "warmup_iters": 1}
    data = {"shakespeare_char": DATASETS / "shakespeare_char"}
    with tempfile.TemporaryDirectory() as directory:
        copy = copy_with_data(checkout, Path(directory), data)
        rows = [train_peer(copy, SEED, THREADS, "nanoGPT's train_shakespeare_char", arguments)]
    for name in ("shakespeare_char_baby", "shakespeare_char_best"):
        run = resolve_run(CONFIG, name)
        run = run.model_copy(update={"train": run.train.model_copy(update=changes)})
        rows.append(train_ours(run, SEED, THREADS, steps))
    return rows


def shapes(device: str, tiny: bool) -> list[train_step.Shape]:
    """The baby GPT and GPT-2 124M, with nanoGPT's batches."""
    baby = replace(
        train_step.QUICK_START,
        name="nanoGPT's baby GPT",
        model=resolve_run(CONFIG, "shakespeare_char_baby").model,
        batch_size=64,
        device=device,
        steps=200,
        warm_up=50,
    )
    gpt2 = replace(train_step.GPT2, batch_size=12, device=device, steps=60, warm_up=20)
    if tiny:
        return [replace(shape, batch_size=1, steps=TINY_STEPS, warm_up=1) for shape in (baby, gpt2)]
    return [baby, gpt2]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="only a few steps of each")
    arguments = parser.parse_args()
    processes.max_others = 1.0  # other work on the host doesn't slow down a GPU
    checkout = arguments.checkout.resolve()
    print(table(train_all(checkout, arguments.device, arguments.tiny)), flush=True)
    train_step.compare_all(checkout, shapes(arguments.device, arguments.tiny), 1, THREADS)


if __name__ == "__main__":
    main()
