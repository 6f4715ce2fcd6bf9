"""Samples from a trained model.

- `sample`: writes samples.txt for people and samples.jsonl for programs
- `stream`: yields text piece by piece, for a terminal
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from nanogpt.artifacts.records.base import JsonObject
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import SampleSettings
from nanogpt.errors import plural
from nanogpt.files.atomic import write_text
from nanogpt.inference.drafting import engine_of
from nanogpt.inference.engine import Engine, Prompt, Step, generate
from nanogpt.inference.prompts import encode_prompts
from nanogpt.model.checkpoints import Checkpoint, load_model
from nanogpt.model.kernels import prepare_kernels

if TYPE_CHECKING:  # only callers that mix pass n-grams, so a benchmark doesn't depend on them
    from nanogpt.ngram.mixing import Ngrams


@dataclass(frozen=True)
class Sample:
    """A sample. text: without the prompt and the stop string. finish: the reason why it ends."""

    prompt: str
    text: str
    tokens: tuple[int, ...]
    mean_log_probability: float
    seed: int
    finish: Literal["length", "stop"]


def sample(
    run: str,
    model_directory: Path,
    settings: SampleSettings,
    path: Path,
    ngrams: "Ngrams | None" = None,
) -> str:
    """Draw samples from a model directory; write samples.txt to `path`, and samples.jsonl.

    settings: with device and dtype resolved. ngrams: to mix with the model. Returns a line for the
    terminal.
    """
    prepare_kernels(settings.reproducible)
    checkpoint = load_model(model_directory, settings.device)
    samples = draw_samples(checkpoint, settings, ngrams)
    if not settings.start:
        settings = settings.model_copy(update={"start": samples[0].prompt})
    lines = [json.dumps(_as_json(one, run, settings), ensure_ascii=False) for one in samples]
    write_text(path, _samples_page(run, settings, samples, ngrams))
    write_text(path.with_suffix(".jsonl"), "".join(f"{line}\n" for line in lines))
    n_tokens = sum(len(one.tokens) for one in samples)
    return f"{plural(len(samples), 'sample')}, {plural(n_tokens, 'token')}"


def draw_samples(
    checkpoint: Checkpoint, settings: SampleSettings, ngrams: "Ngrams | None" = None
) -> list[Sample]:
    """Draw all samples, grouped by prompt."""
    engine = _engine(checkpoint, settings, ngrams)
    prompts = _prompts(checkpoint, settings)
    steps: dict[int, list[Step]] = {id(prompt): [] for prompt in prompts}
    for step in generate(engine, prompts):
        steps[id(step.sequence.prompt)].append(step)
    return [_sample(checkpoint, prompt, steps[id(prompt)]) for prompt in prompts]


def stream(
    checkpoint: Checkpoint, settings: SampleSettings, ngrams: "Ngrams | None" = None
) -> Iterator[str]:
    """Yield text as it's drawn: each sample's prompt, then a piece for each token.

    Several samples get the headings of samples.txt; a single one gets none.
    """
    engine = _engine(checkpoint, settings, ngrams)
    prompts = _prompts(checkpoint, settings)
    for number, prompt in enumerate(prompts, 1):
        if number > 1:
            yield "\n"
        if len(prompts) > 1:
            yield f"{_heading(number, len(prompts))}\n"
        yield checkpoint.tokenizer.decode(prompt.tokens)
        yield from stream_prompt(engine, prompt)
        yield "\n"


def stream_prompt(engine: Engine, prompt: Prompt) -> Iterator[str]:
    """Yield the text after a prompt, a piece for each token. engine: idle, with a tokenizer.

    The text of a token that ends inside a character or starts a stop string comes later.
    """
    sequence = engine.join(prompt)

    def pieces() -> Iterator[str]:
        try:
            while sequence in engine.sequences:
                yield from (step.text for step in engine.step())
        finally:
            if sequence in engine.sequences:  # the caller stopped early
                engine.leave(sequence)

    return pieces()


def _engine(checkpoint: Checkpoint, settings: SampleSettings, ngrams: "Ngrams | None") -> Engine:
    return engine_of(checkpoint.model, settings, checkpoint.tokenizer, ngrams)


def _prompts(checkpoint: Checkpoint, settings: SampleSettings) -> list[Prompt]:
    """Return a prompt for each sample, with consecutive seeds."""
    prompts = encode_prompts(checkpoint.tokenizer, settings, checkpoint.start)
    each = [tokens for tokens in prompts for _ in range(settings.num_samples)]
    return [
        Prompt(tokens, settings.model_copy(update={"seed": settings.seed + number}))
        for number, tokens in enumerate(each)
    ]


def _sample(checkpoint: Checkpoint, prompt: Prompt, steps: Sequence[Step]) -> Sample:
    finish = steps[-1].finish
    assert finish
    return Sample(
        prompt=checkpoint.tokenizer.decode(prompt.tokens),
        text="".join(step.text for step in steps),
        tokens=tuple(step.token for step in steps),
        mean_log_probability=float(np.mean([step.log_probability for step in steps])),
        seed=prompt.settings.seed,
        finish=finish,
    )


def _as_json(one: Sample, run: str, settings: SampleSettings) -> JsonObject:
    """Return a line of samples.jsonl. mean_log_probability: nats per token, before temperature."""
    return {
        "run": run,
        "prompt": one.prompt,
        "text": one.text,
        "tokens": list(one.tokens),
        "mean_log_probability": round(one.mean_log_probability, 6),
        "finish": one.finish,
        "seed": one.seed,
        "settings": {**as_parameters(settings), "seed": one.seed},
    }


def _samples_page(
    run: str, settings: SampleSettings, samples: Sequence[Sample], ngrams: "Ngrams | None"
) -> str:
    """Render samples.txt: settings as comments, then each sample below a heading.

    Settings at their neutral values are left out, so adding a setting doesn't change the file.
    """
    lines = [f"# {plural(len(samples), 'sample')} of {run}"]
    lines += [f"# {name}: {value!r}" for name, value in as_parameters(settings).items()]
    if ngrams:
        lines.append(f"# {ngrams.summary()}")
    for number, one in enumerate(samples, 1):
        lines += ["", _heading(number, len(samples)), one.prompt + one.text]
    return "\n".join(lines) + "\n"


def _heading(number: int, total: int) -> str:
    """Return the line above a sample. number: counted from 1."""
    return f"--- sample {number} of {total} ".ljust(80, "-")
