"""Sampling: one token after another, each read once thanks to a key/value cache.

Which model and which prompt is left to others; so is where the text goes.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nanogpt.config.schema import SampleSettings
from nanogpt.data.formats import read_text
from nanogpt.devices import autocast
from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import write_text
from nanogpt.model.directories import Checkpoint, load_model
from nanogpt.model.gpt import GPT


@torch.no_grad()
def generate(model: GPT, prompt: Tensor, settings: SampleSettings) -> Iterator[Tensor]:
    """Continue a prompt (B, T) by max_new_tokens tokens, yielding each step's (B,).

    Every row draws its own tokens, all from one generator seeded with settings.seed. When
    block_size tokens are read, the last half of them is read again as the new context: learned
    positions cannot slide, and so a token costs one step, not block_size.
    """
    block_size = model.settings.block_size
    device = prompt.device
    random = torch.Generator(device).manual_seed(settings.seed)
    dtype = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    cache = model.new_cache(prompt.shape[0], dtype)
    read = unread = prompt[:, -block_size:]
    model.eval()
    for _ in range(settings.max_new_tokens):
        if cache.length + unread.shape[1] > block_size:
            cache.length = 0
            read = unread = read[:, -max(1, block_size // 2) :]
        with autocast(settings.device, settings.dtype):
            logits = model.head(model.hidden(unread, cache)[:, -1])  # (B, V)
        probabilities = torch.softmax(
            _keep_top_k(logits.float() / settings.temperature, settings.top_k), -1
        )
        unread = torch.multinomial(probabilities, 1, generator=random)  # (B, 1)
        read = torch.cat([read, unread], dim=1)[:, -block_size:]
        yield unread[:, 0]


def _keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    if not 0 < top_k < logits.shape[-1]:
        return logits
    smallest_kept = torch.topk(logits, top_k).values[:, [-1]]
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def encode_prompt(checkpoint: Checkpoint, settings: SampleSettings) -> tuple[str, Tensor]:
    """The prompt's text and its tokens (1, T); `FILE:path` is read from the file.

    Errors: UserError for a file that cannot be read, or characters that the vocabulary lacks.
    """
    text = settings.start
    if text.startswith("FILE:"):
        path = Path(text.removeprefix("FILE:"))
        try:
            text = read_text(path)
        except UserError as error:
            raise UserError(f"sample.start: {error}") from None
        if not text:
            raise UserError(f"sample.start: {path}: empty; put a prompt there")
    try:
        ids = checkpoint.tokenizer.encode(text, settings.unknown)
    except UserError as error:
        raise UserError(f"sample.start: {error}, or say `unknown: skip`") from None
    if not len(ids):
        raise UserError("sample.start: no character of it is in the vocabulary; give another start")
    return checkpoint.tokenizer.decode(ids), torch.from_numpy(ids.astype("int64"))[None]


def sample(run: str, model_directory: Path, settings: SampleSettings, path: Path) -> str:
    """Draw samples from a model directory and write them to `path`, headed by the settings.

    settings: with device and dtype resolved. Returns what there is to say of it in one line.
    """
    checkpoint = load_model(model_directory, settings.device)
    text, prompt = encode_prompt(checkpoint, settings)
    prompts = prompt.expand(settings.num_samples, -1).to(settings.device)
    tokens = torch.stack(list(generate(checkpoint.model, prompts, settings)), dim=1)  # (B, T)
    lines = [f"# {settings.num_samples} samples of {run}"]
    lines += [f"# {name}: {value!r}" for name, value in settings.model_dump().items()]
    for number, row in enumerate(tokens, 1):
        heading = f"--- sample {number} of {settings.num_samples} "
        lines += ["", heading.ljust(80, "-"), text + checkpoint.tokenizer.decode(row.cpu())]
    write_text(path, "\n".join(lines) + "\n")
    return f"{plural(len(tokens), 'sample')} of {plural(tokens.shape[1], 'token')}"


def stream(checkpoint: Checkpoint, settings: SampleSettings) -> Iterator[str]:
    """Pieces of text as they are drawn: the prompt, then token by token, sample after sample.

    A token may end inside a character; what is whole comes at once, the rest with the next token.
    """
    text, prompt = encode_prompt(checkpoint, settings)
    for number in range(settings.num_samples):
        yield text
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # Each sample has its own seed, as they are not drawn in one batch here.
        seeded = settings.model_copy(update={"seed": settings.seed + number, "num_samples": 1})
        for token in generate(checkpoint.model, prompt.to(settings.device), seeded):
            yield decoder.decode(checkpoint.tokenizer.to_bytes(token.cpu()))
        yield decoder.decode(b"", final=True) + "\n"
