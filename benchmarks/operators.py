"""Compare the bits of torch's and our operators across threads and CPU instruction sets.

    python benchmarks/operators.py

Each variant runs in its own process and computes every operator on fixed numbers. The tables mark
digests that differ from those of the first variant. Our operations are those of
nanogpt/model/alike.py, which `reproducible: anywhere` uses.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from nanogpt.model import alike  # noqa: E402

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2"}
# Threads, and environment variables that limit libraries to older instructions.
WAYS: dict[str, tuple[int, dict[str, str]]] = {
    "default, 1 thread": (1, {}),
    "2 threads": (2, {}),
    "torch limited to AVX2": (1, AVX2),
    "oneDNN limited to AVX2": (1, {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "MKL in compatibility mode": (1, {"MKL_CBWR": "COMPATIBLE"}),
}
OURS_WAYS = {
    "AVX2, 1 thread": (1, AVX2),
    "2 threads": (2, AVX2),
    "oneDNN limited to AVX2": (2, {**AVX2, "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "MKL in compatibility mode": (2, {**AVX2, "MKL_CBWR": "COMPATIBLE"}),
    "oneDNN limited to SSE 4.1": (2, {**AVX2, "ONEDNN_MAX_CPU_ISA": "SSE41"}),
    "torch without AVX": (2, {"ATEN_CPU_CAPABILITY": "default"}),
}


def torchs() -> dict[str, Callable[[], Tensor]]:
    """torch's operators in a GPT's training step, with inputs of typical shapes."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        # Quotients of random integers, which are the same everywhere; their products need rounding.
        return torch.randint(-9999, 9999, shape, generator=generator) / 4567

    x, weight, gradient = numbers(768, 512), numbers(128, 512), numbers(768, 128)
    q, k, v = numbers(3, 12, 4, 64, 32)
    targets = torch.randint(65, (768,), generator=generator)

    def gradient_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        y = function(x)
        result: Tensor
        (result,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return result

    return {
        "matrix product, forward": lambda: x @ weight.T,
        "matrix product, gradient of the weights": lambda: gradient.T @ x,
        "the same with oneDNN": lambda: torch.ops.mkldnn._linear_pointwise(
            gradient.T, x.T, None, "none", [], ""
        ),
        "batched product": lambda: q @ k.mT,
        "fused attention": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "softmax": lambda: x.softmax(-1),
        "cross entropy": lambda: F.cross_entropy(x[:, :65], targets, reduction="none"),
        "GELU": lambda: F.gelu(x),
        "exp": x.exp,
        "exp2": x.exp2,
        "layer norm": lambda: F.layer_norm(x, (512,)),
        "layer norm, gradient of the weights": lambda: gradient_of(
            lambda w: F.layer_norm(x, (512,), w), torch.ones(512)
        ),
        "sum of rows": lambda: x.sum(-1),
        "sum of columns": lambda: x.sum(0),
        "sum of all": lambda: x.sum(),
        "norm of all": lambda: x.norm(),
        "normal random numbers": lambda: torch.empty(500).normal_(generator=generator),
    }


def digests(threads: int, environment: dict[str, str], kind: str) -> dict[str, str]:
    """Digests of all operators, computed by a process with this environment."""
    command = [sys.executable, __file__, kind, str(threads)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    result: dict[str, str] = json.loads(done.stdout)
    return result


def table(kind: str, ways: dict[str, tuple[int, dict[str, str]]]) -> str:
    """A Markdown table: a row per operator, a column per variant, compared with the first."""
    found = {name: digests(*way, kind) for name, way in ways.items()}
    first = next(iter(found))
    lines = ["| " + " | ".join([f"{kind} operator (reference: {first})", *list(found)[1:]]) + " |"]
    lines.append("|---|" + "---|" * (len(found) - 1))
    for operator, digest in found[first].items():
        cells = ["other bits" if d[operator] != digest else "" for d in list(found.values())[1:]]
        lines.append("| " + " | ".join([operator, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables, or the digests in a child process."""
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[2]))
        operations = torchs() if sys.argv[1] == "torch's" else alike.operations()
        print(json.dumps({name: alike.digest(run()) for name, run in operations.items()}))
        return
    print(table("torch's", WAYS), table("our", OURS_WAYS), sep="\n\n")


if __name__ == "__main__":
    main()
