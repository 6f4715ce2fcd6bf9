"""Measure how much batching changes the probabilities of a sequence, in float32.

    python benchmarks/batches.py results/shakespeare_char/model

Generates N_TEXTS texts from random prompts of different lengths, in a batch and one by one, with
the same seeds. The total variation distance of the two distributions of a token is the probability
that the draws differ. Prints its mean and maximum over all tokens before two texts diverge, and how
many texts did.
"""

import argparse
import sys
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.config.schema import SampleSettings  # noqa: E402
from nanogpt.inference.engine import Engine, Prompt, generate  # noqa: E402
from nanogpt.model.checkpoints import load_model  # noqa: E402

N_TEXTS = 20
N_TOKENS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="a model directory")
    model = load_model(parser.parse_args().model).model
    settings = SampleSettings(max_new_tokens=N_TOKENS, top_k=0, device="cpu", dtype="float32")
    random = torch.Generator().manual_seed(0)
    prompts = [
        Prompt(
            torch.randint(model.vocab_size, (1 + 3 * number,), generator=random).tolist(),
            settings.model_copy(update={"seed": number}),
            n_best=model.vocab_size,
        )
        for number in range(N_TEXTS)
    ]
    engine = Engine(model, settings)

    def run(some: list[Prompt]) -> dict[int, list[tuple[int, torch.Tensor]]]:
        found: dict[int, list[tuple[int, torch.Tensor]]] = {}
        for step in generate(engine, some):
            p = torch.zeros(model.vocab_size, dtype=torch.float64)
            tokens, scores = zip(*step.best, strict=True)
            p[list(tokens)] = torch.tensor(scores, dtype=torch.float64).exp()
            seed = step.sequence.prompt.settings.seed
            found.setdefault(seed, []).append((step.token, p))
        return found

    together = run(prompts)
    distances, n_diverged = [], 0
    for prompt in prompts:
        seed = prompt.settings.seed
        for (token, p), (other, q) in zip(run([prompt])[seed], together[seed], strict=True):
            distances.append(float((p - q).abs().sum() / 2))
            if token != other:
                n_diverged += 1
                break
    mean = sum(distances) / len(distances)
    print(
        f"total variation distance: {mean:.1e} on average (one draw in {1 / mean:,.0f}), "
        f"{max(distances):.1e} at most; {n_diverged} of {N_TEXTS} texts differ "
        f"({len(distances):,} tokens compared)"
    )


if __name__ == "__main__":
    main()
