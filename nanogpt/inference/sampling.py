"""Sampling: one token after another; a key/value cache keeps what was computed for earlier ones.

- `generate`: token ids from a model and a prompt of token ids
- `sample`: samples.txt from a model directory
- `stream`: text, piece by piece, for a terminal

With n-grams, all of them draw from the mixed distribution: temperature and top_k apply to it.
"""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import SampleSettings
from nanogpt.devices import autocast, torch_dtype
from nanogpt.errors import plural
from nanogpt.files.atomic import write_text
from nanogpt.inference.prompts import encode_prompt
from nanogpt.model.checkpoints import Checkpoint, load_model
from nanogpt.model.ensemble import Model
from nanogpt.model.kernels import draw, prepare_kernels, softmax

if TYPE_CHECKING:  # given by callers that mix: a benchmark doesn't depend on their code
    from nanogpt.ngram.mixing import Ngrams


# Where a division by the temperature would leave float32's range.
GREEDY_BELOW = 1e-6


@torch.no_grad()
def generate(
    model: Model, prompt: Tensor, settings: SampleSettings, ngrams: "Ngrams | None" = None
) -> Iterator[Tensor]:
    """Continue a prompt (B, T) by max_new_tokens tokens, yielding each step's (B,).

    Every row draws its own tokens, all from one generator seeded with settings.seed. Once the
    context is full, its last half is read again as the new context: learned positions can't slide,
    and this way a token still costs one step instead of block_size.
    """
    block_size = model.settings.block_size
    device = prompt.device
    random = torch.Generator(device).manual_seed(settings.seed)
    cache = model.new_cache(prompt.shape[0], torch_dtype(settings.dtype))
    mixed = ngrams.follow(prompt) if ngrams else None
    context = unread = prompt[:, -block_size:]  # unread: tokens that the cache doesn't have yet
    model.eval()
    for _ in range(settings.max_new_tokens):
        if cache.length + unread.shape[1] > block_size:
            cache.length = 0
            context = unread = context[:, -max(1, block_size // 2) :]
        with autocast(settings.device, settings.dtype):
            logits = model.head(model.hidden(unread, cache)[:, -1])  # (B, V)
        if mixed:
            logits = mixed.mix(logits)
        unread = _choose(logits.float(), settings, random)  # (B, 1)
        context = torch.cat([context, unread], dim=1)[:, -block_size:]
        if mixed:
            mixed.read(unread[:, 0])
        yield unread[:, 0]


def _choose(logits: Tensor, settings: SampleSettings, random: torch.Generator) -> Tensor:
    """The next token of each row, (B, 1): drawn, or at temperature 0 the likeliest."""
    if settings.temperature < GREEDY_BELOW:
        return logits.argmax(-1, keepdim=True)
    kept = _keep_top_k(logits / settings.temperature, settings.top_k)
    return draw(softmax(kept), random)


def _keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Logits (B, V) with all but the top_k largest of a row at -infinity; 0 keeps all."""
    if not 0 < top_k < logits.shape[-1]:
        return logits
    smallest_kept = torch.topk(logits, top_k).values[:, [-1]]
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def sample(
    run: str,
    model_directory: Path,
    settings: SampleSettings,
    path: Path,
    ngrams: "Ngrams | None" = None,
) -> str:
    """Draw samples from a model directory and write them to `path`, headed by the settings.

    settings: with device and dtype resolved. ngrams: to mix with the model. Returns one line for
    the terminal.
    """
    prepare_kernels(settings.reproducible)
    checkpoint = load_model(model_directory, settings.device)
    text, prompt = _prompt(checkpoint, settings)
    prompts = prompt.expand(settings.num_samples, -1).to(settings.device)
    steps = generate(checkpoint.model, prompts, settings, ngrams)
    tokens = torch.stack(list(steps), dim=1)  # (B, T)
    samples = [text + checkpoint.tokenizer.decode(row.cpu()) for row in tokens]
    if not settings.start:
        settings = settings.model_copy(update={"start": text})
    write_text(path, _samples_page(run, settings, samples, ngrams))
    return f"{plural(len(tokens), 'sample')} of {plural(tokens.shape[1], 'token')}"


def _prompt(checkpoint: Checkpoint, settings: SampleSettings) -> tuple[str, Tensor]:
    """The prompt's text and its tokens (1, T)."""
    ids = encode_prompt(checkpoint.tokenizer, settings, checkpoint.start)
    return checkpoint.tokenizer.decode(ids), torch.tensor(ids)[None]


def _samples_page(
    run: str, settings: SampleSettings, samples: Sequence[str], ngrams: "Ngrams | None"
) -> str:
    """samples.txt: settings as comments, then each sample below a heading.

    Settings at their neutral values are left out, so that a new setting changes no byte.
    """
    lines = [f"# {settings.num_samples} samples of {run}"]
    lines += [f"# {name}: {value!r}" for name, value in as_parameters(settings).items()]
    if ngrams:
        lines.append(f"# {ngrams.summary()}")
    for number, text in enumerate(samples, 1):
        heading = f"--- sample {number} of {settings.num_samples} "
        lines += ["", heading.ljust(80, "-"), text]
    return "\n".join(lines) + "\n"


def stream(
    checkpoint: Checkpoint, settings: SampleSettings, ngrams: "Ngrams | None" = None
) -> Iterator[str]:
    """Text as it is drawn: the prompt, then a piece for each token, sample after sample.

    A token may end inside a character, which then comes with the next token.
    """
    text, prompt = _prompt(checkpoint, settings)
    for number in range(settings.num_samples):
        yield text
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # Each sample has its own seed, because they aren't drawn in one batch here.
        seeded = settings.model_copy(update={"seed": settings.seed + number, "num_samples": 1})
        for token in generate(checkpoint.model, prompt.to(settings.device), seeded, ngrams):
            yield decoder.decode(checkpoint.tokenizer.to_bytes(token.cpu()))
        yield decoder.decode(b"", final=True) + "\n"
