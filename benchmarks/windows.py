"""Measure the loss past a model's window, for each value of `sample.window`.

    python benchmarks/windows.py results/shakespeare_char/model results/datasets/shakespeare_char

Reads N_TEXTS texts of N_WINDOWS windows from the validation split token by token, as if each token
had been drawn. Prints the mean loss in nats after the first window, and in the first window, which
is the same for all values.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.config.schema import SampleSettings  # noqa: E402
from nanogpt.data.batches import load  # noqa: E402
from nanogpt.inference.engine import Engine, GeneratedSequence, Prompt, generate  # noqa: E402
from nanogpt.model.checkpoints import load_model  # noqa: E402
from nanogpt.model.ensemble import Model  # noqa: E402

N_TEXTS = 40
N_WINDOWS = 4


class ForcedEngine(Engine):
    """An engine that chooses the next token of a given text."""

    texts: dict[int, list[int]]  # by seed

    def _choose(self, logits: Tensor, group: Sequence[GeneratedSequence]) -> Tensor:  # noqa: ARG002
        places = [(s.prompt.settings.seed, len(s.tokens)) for s in group]
        return torch.tensor([self.texts[seed][place] for seed, place in places])


def losses(model: Model, settings: SampleSettings, texts: list[list[int]]) -> Tensor:
    """Nats of each token except the first of each text, (N, T - 1)."""
    engine = ForcedEngine(model, settings)
    engine.texts = dict(enumerate(texts))
    prompts = [
        Prompt(text[:1], settings.model_copy(update={"seed": number}))
        for number, text in enumerate(texts)
    ]
    nats: list[list[float]] = [[] for _ in texts]
    for step in generate(engine, prompts):
        nats[step.sequence.prompt.settings.seed].append(-step.log_probability)
    return torch.tensor(nats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="a model directory")
    parser.add_argument("dataset", type=Path, help="its dataset")
    arguments = parser.parse_args()
    model = load_model(arguments.model).model
    block_size = model.settings.block_size
    val, length = load(arguments.dataset).val, N_WINDOWS * block_size
    starts = np.linspace(0, len(val) - length, N_TEXTS).astype(int)
    texts = [val[start : start + length].astype(int).tolist() for start in starts]
    for window in ("half", "crop", "slide"):
        if window == "slide" and model.settings.position == "learned":
            continue
        settings = SampleSettings(
            window=window, max_new_tokens=length - 1, device="cpu", dtype="float32"
        )
        nats = losses(model, settings, texts)
        first, later = nats[:, : block_size - 1], nats[:, block_size - 1 :]
        error = later.mean(1).std() / N_TEXTS**0.5
        print(
            f"{window}: {later.mean():.4f} +- {error:.4f} nats per token past the window, "
            f"{first.mean():.4f} in the first window"
        )


if __name__ == "__main__":
    main()
