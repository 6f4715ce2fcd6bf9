"""Compare the speed of generation with nanoGPT's `GPT.generate`.

    python benchmarks/generate.py PATH_OF_A_NANOGPT_CHECKOUT [--models 0.8M 10.65M 124M]
    python benchmarks/generate.py PATH --short            100 tokens, a few minutes
    python benchmarks/generate.py PATH --dtypes float32 bfloat16 int8

nanoGPT computes in float32. Both use the same random weights, batch and number of tokens, the
prompt "\\n" (token 0), temperature 0.8 and top_k 200. nanoGPT's sample.py draws one sample after
another, so its speed for ten samples is that of one stream. Each round times nanoGPT, then each of
our dtypes. There are five rounds, or three if a round of nanoGPT takes over a minute. "Bandwidth"
is the bytes of weights that a step reads, divided by its time, as a share of this machine's memory
bandwidth. Prints tokens per second; the last line is JSON.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.project import let_threads_sleep  # noqa: E402

let_threads_sleep()

import torch  # noqa: E402

from nanogpt.config.schema import ModelSettings, SampleSettings  # noqa: E402
from nanogpt.devices import torch_dtype  # noqa: E402
from nanogpt.inference.engine import Engine, Prompt, continuations  # noqa: E402
from nanogpt.model.gpt import GPT  # noqa: E402

DTYPES = ("float32", "bfloat16", "int8")
SHORT = 100  # tokens
LONG = 60.0  # seconds
READ_BYTES = 1 << 29


@dataclass(frozen=True)
class Case:
    """A measurement. rows: sequences in a batch. tokens: per sequence."""

    model: str
    rows: int
    tokens: int


# nanoGPT's CPU quick start, its baby GPT, and GPT-2 with nanoGPT's padded vocabulary.
MODELS = {
    "0.8M": (ModelSettings(n_layer=4, n_head=4, n_embd=128, block_size=64, dropout=0.0), 65),
    "10.65M": (ModelSettings(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.0), 65),
    "124M": (ModelSettings(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True), 50_304),
}
CASES = (
    Case("0.8M", 1, 500),
    Case("0.8M", 10, 500),
    Case("10.65M", 1, 500),
    Case("10.65M", 10, 500),
    Case("124M", 1, 256),
)


@dataclass(frozen=True)
class Result:
    """Medians in tokens per second, over all rows. spread: smallest and largest ratio."""

    case: Case
    dtype: str  # of our model
    peer: float
    ours: float
    ratio: float
    spread: tuple[float, float]
    bandwidth: float


def import_model(checkout: Path) -> Any:
    """Import nanoGPT's model.py."""
    spec = importlib.util.spec_from_file_location("nanogpt_peer", checkout / "model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def same_model(peer: Any, settings: ModelSettings, vocab_size: int) -> tuple[GPT, Any]:
    """Our model and nanoGPT's, with the same random weights."""
    torch.manual_seed(0)
    ours = GPT(settings, vocab_size).eval()
    names = ("n_layer", "n_head", "n_embd", "block_size", "bias")
    arguments = {name: getattr(settings, name) for name in names}
    theirs = peer.GPT(peer.GPTConfig(vocab_size=vocab_size, dropout=0.0, **arguments)).eval()
    weights = {f"transformer.{name}": weight for name, weight in ours.state_dict().items()}
    theirs.load_state_dict({**weights, "lm_head.weight": weights["transformer.wte.weight"]})
    return ours, theirs


def seconds(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_rate() -> float:
    """The machine's memory bandwidth for reading, in bytes per second."""
    numbers = torch.ones(READ_BYTES // 4)
    return READ_BYTES / min(seconds(numbers.sum) for _ in range(9))


def measure(
    case: Case, ours: GPT, theirs: Any, dtypes: Sequence[str], rate: float
) -> Iterator[Result]:
    """Time nanoGPT and each of our dtypes, taking turns."""
    engines = {dtype: Engine(ours, make_settings(case.tokens, dtype)) for dtype in dtypes}
    start = torch.zeros(case.rows, 1, dtype=torch.int64)

    def by_peer(n_tokens: int = case.tokens) -> None:
        with torch.no_grad():
            theirs.generate(start, n_tokens, temperature=0.8, top_k=200)

    def by_us(dtype: str, n_tokens: int = case.tokens) -> None:
        # Each row has its own seed and so its own text; equal contexts would be read only once.
        settings = make_settings(n_tokens, dtype)
        seeded = [settings.model_copy(update={"seed": row}) for row in range(case.rows)]
        continuations(engines[dtype], [Prompt([0], own) for own in seeded])

    by_peer(3)
    for dtype in dtypes:
        by_us(dtype, 3)
    peers: list[float] = []
    own: dict[str, list[float]] = {dtype: [] for dtype in dtypes}
    while len(peers) < (3 if peers and peers[0] > LONG else 5):
        peers.append(seconds(by_peer))
        for dtype, times in own.items():
            times.append(seconds(partial(by_us, dtype)))
    n_tokens = case.rows * case.tokens
    n_weights = ours.n_parameters() - ours.settings.block_size * ours.settings.n_embd
    for dtype, times in own.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(peers, times, strict=True))
        median = statistics.median(times)
        n_bytes = n_weights * torch_dtype(dtype).itemsize
        yield Result(
            case,
            dtype,
            round(n_tokens / statistics.median(peers), 1),
            round(n_tokens / median, 1),
            round(statistics.median(ratios), 2),
            (round(ratios[0], 2), round(ratios[-1], 2)),
            round(n_bytes * case.tokens / median / rate, 3),
        )


def make_settings(n_tokens: int, dtype: str) -> SampleSettings:
    """Settings for both programs."""
    return SampleSettings(
        max_new_tokens=n_tokens, temperature=0.8, top_k=200, device="cpu", dtype=dtype
    )


def describe(result: Result) -> str:
    """One line of text."""
    case, (least, most) = result.case, result.spread
    return (
        f"{case.model:>7} {case.rows:>3} x {case.tokens}: nanoGPT {result.peer:,.1f} tokens/s, "
        f"nanogpt in {result.dtype} {result.ours:,.1f}: {result.ratio:.1f} times ({least:.1f} to "
        f"{most:.1f}), bandwidth {100 * result.bandwidth:.0f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    peer, rate = import_model(arguments.nanogpt), read_rate()
    print(f"{torch.get_num_threads()} threads, memory read at {rate / 1e9:.1f} GB/s")
    results = []
    for name in arguments.models:
        ours, theirs = same_model(peer, *MODELS[name])
        for case in CASES:
            if case.model == name:
                n_tokens = min(case.tokens, SHORT) if arguments.short else case.tokens
                case = Case(name, case.rows, n_tokens)
                for result in measure(case, ours, theirs, arguments.dtypes, rate):
                    results.append(result)
                    print(describe(result), flush=True)
    print(json.dumps({"read_rate": rate, "results": [asdict(result) for result in results]}))


if __name__ == "__main__":
    main()
