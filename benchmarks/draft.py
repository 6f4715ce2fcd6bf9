"""Measure how much faster sampling one stream is with drafts by n-grams (`sample.draft`).

    python benchmarks/draft.py speed DATASET --model results/shakespeare_char/model
    python benchmarks/draft.py kept DATASET --model results/shakespeare_char/model
    python benchmarks/draft.py cost DATASET

DATASET is a directory such as results/datasets/shakespeare_char. N-grams are counted on its
training split.

speed: tokens per second of texts of N_TOKENS tokens at temperature 0.8, with drafts of each length
    and without, taking turns for ROUNDS rounds. Prints medians, and the smallest and largest ratio.
    --wide pads the model's weights with zeros to the shape of nanoGPT's baby GPT (10.65 million),
    to get the same text at the cost of a larger model. It needs the modern recipe with heads of 64.

kept: the probability that a drafted token is kept, from texts of the GPT. Let p be the distribution
    that a token x was drawn from, and q the one that it would have been drafted from. The draft is
    kept with probability min(1, q(x) / p(x)), on average sum min(p, q). The tokens per pass follow
    from these probabilities. Tries several orders and temperatures for q.

cost: milliseconds of a step, of a pass over 2 and more tokens, and of drafting one token, with
    random weights in the shapes of benchmarks/generate.py.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.project import NGRAMS_FILE, let_threads_sleep  # noqa: E402

let_threads_sleep()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.generate import MODELS  # noqa: E402
from nanogpt.artifacts.records.ngram_counts import NgramHeader  # noqa: E402
from nanogpt.config.schema import SampleSettings  # noqa: E402
from nanogpt.data.batches import TokenFiles, load  # noqa: E402
from nanogpt.inference.choosing import choose  # noqa: E402
from nanogpt.inference.drafting import engine_of  # noqa: E402
from nanogpt.inference.engine import (  # noqa: E402
    Engine,
    Prompt,
    continuations,
    generate,
)
from nanogpt.inference.torch_state import small_operations  # noqa: E402
from nanogpt.model.checkpoints import load_model  # noqa: E402
from nanogpt.model.gpt import GPT  # noqa: E402
from nanogpt.model.kernels import softmax  # noqa: E402
from nanogpt.ngram.counts import count, vocabulary_digest  # noqa: E402
from nanogpt.ngram.mixing import Ngrams  # noqa: E402
from nanogpt.ngram.trie import NgramTrie, build_trie  # noqa: E402

N_TEXTS = 20
N_TOKENS = 500
TOP_K = 200
TEMPERATURES = (0.8, 1.0)
ORDERS = (4, 5, 6, 7, 8)
DRAFT_TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DRAFTED = range(1, 8)
SPEED_DRAFTED = (0, 2, 4, 6, 8)
MIXTURES = ((5, 0.0), (8, 0.9))  # order and weight: the GPT alone, and `ngram: on`
ROUNDS = 5
N_CALLS = 300
N_WEIGHTS = 3_000_000_000  # limit on the weights read by all calls of one kind


def print_speed(model_directory: Path, dataset_directory: Path, is_wide: bool) -> None:
    """Print tokens per second of the GPT alone and of a mixture with n-grams."""
    model, files = load_model(model_directory).model, load(dataset_directory)
    if is_wide:
        assert isinstance(model, GPT)
        model = widened(model)
    for order, weight in MIXTURES:
        ngrams = ngrams_of(files, order, weight)
        rates: dict[int, list[float]] = {k: [] for k in SPEED_DRAFTED}
        for seed in range(ROUNDS):
            for k, found in rates.items():
                settings = SampleSettings(
                    max_new_tokens=N_TOKENS,
                    temperature=TEMPERATURES[0],
                    top_k=TOP_K,
                    draft=k,
                    seed=seed,
                    device="cpu",
                    dtype="float32",
                )
                used = None if weight == 0 and k == 0 else ngrams
                engine = engine_of(model, settings, files.tokenizer, used)
                start = time.perf_counter()
                continuations(engine, [Prompt([0], settings)])
                found.append(N_TOKENS / (time.perf_counter() - start))
        each = []
        for k, found in rates.items():
            ratios = [one / off for one, off in zip(found, rates[0], strict=True)]
            each.append(
                f"{k}: {statistics.median(found):,.0f} ({statistics.median(ratios):.2f} times, "
                f"{min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(f"order {order}, weight {weight}: {', '.join(each)}", flush=True)


@torch.no_grad()
def widened(gpt: GPT) -> GPT:
    """A GPT of 10.65 million weights that computes the same, padded with zeros."""
    own = gpt.settings
    C, H, L = own.n_embd, own.n_head, own.n_layer
    settings = own.model_copy(update={"n_layer": 6, "n_head": 6, "n_embd": 384})
    wide = GPT(settings, gpt.vocab_size).eval()
    # Norms average over more numbers, so their outputs grow by this factor; MLPs square it.
    scale = (C / settings.n_embd) ** 0.5
    for weight in wide.parameters():
        weight.zero_()
    wide.wte.weight[:, :C] = gpt.wte.weight
    wide.output_matrix[:, :C] = gpt.output_matrix * scale
    for block, small in zip(wide.blocks()[:L], gpt.blocks(), strict=True):
        attention = block.attn.c_attn.weight.view(3, settings.n_head, -1, settings.n_embd)
        attention[:, :H, :, :C] = small.attn.c_attn.weight.view(3, H, -1, C)
        block.attn.c_proj.weight[:C, :C] = small.attn.c_proj.weight
        block.mlp.c_fc.weight[: 4 * C, :C] = small.mlp.c_fc.weight
        block.mlp.c_proj.weight[:C, : 4 * C] = small.mlp.c_proj.weight * scale
    tokens = torch.arange(100)[None] % gpt.vocab_size
    torch.testing.assert_close(wide(tokens), gpt(tokens), atol=1e-3, rtol=1e-3)
    return wide


def ngrams_of(files: TokenFiles, order: int, weight: float) -> Ngrams:
    """N-grams of a training split, as in a model directory."""
    header = NgramHeader(
        max_order=order,
        weight=weight,
        caution=0.5,
        vocab_size=files.tokenizer.vocab_size,
        vocabulary=vocabulary_digest(files.tokenizer),
        train_sha256=files.meta.train.sha256,
        n_tokens=len(files.train),
    )
    trie = build_trie(count(files.train, files.tokenizer.vocab_size, order))
    return Ngrams(trie, header, Path(NGRAMS_FILE))


def texts_of(engine: Engine, temperature: float) -> list[tuple[list[int], NDArray[np.float64]]]:
    """Texts of a GPT, with the distributions of their tokens, (T, V)."""
    settings = SampleSettings(
        max_new_tokens=N_TOKENS, temperature=temperature, top_k=TOP_K, device="cpu", dtype="float32"
    )
    prompts = [
        Prompt([0], settings.model_copy(update={"seed": seed}), n_best=engine.vocab_size)
        for seed in range(N_TEXTS)
    ]
    texts: list[list[int]] = [[0] for _ in prompts]
    chosen_from: list[list[Tensor]] = [[] for _ in prompts]
    for step in generate(engine, prompts):
        seed = step.sequence.prompt.settings.seed
        tokens, scores = zip(*step.best[:TOP_K], strict=True)
        p = torch.zeros(engine.vocab_size, dtype=torch.float64)
        p[list(tokens)] = softmax(torch.tensor(scores, dtype=torch.float64) / temperature)
        texts[seed].append(step.token)
        chosen_from[seed].append(p)
    return [(text, torch.stack(p).numpy()) for text, p in zip(texts, chosen_from, strict=True)]


def drafts(trie: NgramTrie, text: Sequence[int]) -> NDArray[np.floating]:
    """The n-grams' distributions for each token of a text except the first, (T, V)."""
    contexts, rows = trie.empty_contexts(1), []
    for token in text[:-1]:
        contexts = trie.read(contexts, np.array([token]))
        rows.append(trie.distributions(contexts).p[0])
    return np.stack(rows)


def tempered(p: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    """Apply a temperature and TOP_K to distributions (T, V)."""
    p = p ** (1 / temperature)
    if p.shape[-1] > TOP_K:
        p[p < np.partition(p, -TOP_K, axis=-1)[:, -TOP_K, None]] = 0
    scaled: NDArray[np.floating] = p / p.sum(-1, keepdims=True)
    return scaled


def tokens_a_pass(kept: NDArray[np.floating], n_drafted: int) -> float:
    """Tokens per pass, on average. kept: the probability that each token is kept, (T,)."""
    T = len(kept)
    starts = np.zeros(T + n_drafted + 1)  # the probability that a pass starts at a token
    starts[0] = 1
    for place in range(T):
        share = starts[place]
        for n_kept in range(n_drafted):
            k = kept[place + n_kept] if place + n_kept < T else 0.0
            starts[place + n_kept + 1] += share * (1 - k)
            share *= k
        starts[place + n_drafted + 1] += share
    return float(T / starts[:T].sum())


def print_kept(model_directory: Path, dataset_directory: Path) -> None:
    """Print the best draft temperature of each order, and its tokens per pass."""
    model, files = load_model(model_directory).model, load(dataset_directory)
    settings = SampleSettings(max_new_tokens=N_TOKENS, device="cpu", dtype="float32")
    engine = Engine(model, settings)
    tries = {o: build_trie(count(files.train, model.vocab_size, o)) for o in ORDERS}
    for temperature in TEMPERATURES:
        texts = texts_of(engine, temperature)
        for order, trie in tries.items():
            found: dict[float, tuple[float, list[NDArray[np.floating]]]] = {}
            raw = [drafts(trie, text) for text, _ in texts]
            for own in DRAFT_TEMPERATURES:
                overlaps, kept = [], []
                for (text, p), each in zip(texts, raw, strict=True):
                    q = tempered(each, own)
                    overlaps.append(np.minimum(p, q).sum(-1).mean())
                    at = np.arange(len(p)), np.array(text[1:])
                    kept.append(np.minimum(1, q[at] / p[at]))
                found[own] = float(np.mean(overlaps)), kept
            best = max(found, key=lambda own: found[own][0])
            overlap, kept = found[best]
            each_k = [
                f"{k}: {np.mean([tokens_a_pass(text, k) for text in kept]):.2f}" for k in DRAFTED
            ]
            print(
                f"temperature {temperature}, order {order} at its best temperature, {best}: kept "
                f"{overlap:.3f}; tokens per pass by drafted tokens: {', '.join(each_k)}",
                flush=True,
            )


def in_turn(works: Mapping[str, Callable[[], object]], n_calls: int) -> dict[str, float]:
    """Milliseconds of each call: the 10th percentile, which other processes hardly affect."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(n_calls):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.quantiles(each, n=10)[0] for name, each in times.items()}


def print_costs(dataset_directory: Path) -> None:
    """Print the time of a step, of passes and of drafts."""
    files = load(dataset_directory)
    trie = build_trie(count(files.train, files.tokenizer.vocab_size, 5))
    text = files.val[:100].astype(int).tolist()
    print(f"{torch.get_num_threads()} threads; drafting a token: {draft_cost(trie, text):.3f} ms")
    for name, (settings, vocab_size) in MODELS.items():
        torch.manual_seed(0)
        print(f"{name}: {describe_costs(GPT(settings, vocab_size).eval())}", flush=True)


def draft_cost(trie: NgramTrie, text: Sequence[int]) -> float:
    """Milliseconds to draw a token from the n-grams and read it."""
    random, contexts = np.random.default_rng(0), trie.empty_contexts(1)
    for token in text:
        contexts = trie.read(contexts, np.array([token]))

    def draft() -> None:
        nonlocal contexts
        sums = tempered(trie.distributions(contexts).p, DRAFT_TEMPERATURES[2]).cumsum()
        token = np.searchsorted(sums, random.random() * sums[-1], side="right")
        contexts = trie.read(contexts, np.array([token]))

    return in_turn({"draft": draft}, N_CALLS)["draft"]


def describe_costs(model: GPT) -> str:
    """Milliseconds at three quarters of the window.

    A step is the engine's and includes choosing a token. A pass chooses one at each position.
    """
    place = model.settings.block_size * 3 // 4
    settings = SampleSettings(temperature=0.8, top_k=TOP_K, device="cpu", dtype="float32")
    engine = Engine(model, settings.model_copy(update={"max_new_tokens": 1 << 30}))
    decoder = engine.decoder
    sequence = engine.join(Prompt([0] * place, settings))
    engine.step()

    def step() -> None:
        engine.step()
        sequence.tokens.pop()
        sequence.n_read -= 1

    def passing(n: int) -> Callable[[], None]:
        def work() -> None:
            with small_operations() if decoder.is_small else nullcontext():
                logits = decoder.read_on([1] * n, place)
                choose(logits, settings, [sequence.uniforms] * n, None)

        return work

    works = {"step": step, **{str(n): passing(n) for n in (1, *(k + 1 for k in DRAFTED))}}
    with torch.inference_mode():
        times = in_turn(works, min(N_CALLS, N_WEIGHTS // model.n_parameters()))
    return ", ".join(f"{name}: {each:.3f}" for name, each in times.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("speed", "kept", "cost"))
    parser.add_argument("dataset", type=Path, help="a dataset's directory")
    parser.add_argument("--model", type=Path, help="a model directory; not needed for cost")
    parser.add_argument("--wide", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        print_costs(arguments.dataset)
    elif arguments.model is None:
        parser.error(f"{arguments.what} needs --model")
    elif arguments.what == "kept":
        print_kept(arguments.model, arguments.dataset)
    else:
        print_speed(arguments.model, arguments.dataset, arguments.wide)


if __name__ == "__main__":
    main()
