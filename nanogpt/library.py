"""Use a trained model in notebooks and other programs: `from nanogpt import load`.

model = load("results/shakespeare_char/model")  # or the run's name, in the project's directory
model.generate("ROMEO:", max_new_tokens=200)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.nn import functional as F

from nanogpt.config.messages import explain
from nanogpt.config.schema import SampleSettings
from nanogpt.config.trained import check_model, find_model
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.devices import resolve
from nanogpt.errors import UserError
from nanogpt.inference.drafting import engine_of
from nanogpt.inference.engine import Engine, Prompt
from nanogpt.inference.prompts import default_prompt, encode_prompt
from nanogpt.inference.sampling import stream_prompt
from nanogpt.inference.torch_state import undisturbed
from nanogpt.model.checkpoints import Checkpoint, load_model
from nanogpt.model.ensemble import Model
from nanogpt.ngram.mixing import Ngrams, find_ngrams

# Settings of `sample` that `load` sets, or that make no sense for a single text.
NOT_OF_A_CALL = ("start", "num_samples", "device", "dtype", "reproducible")


@dataclass(frozen=True)
class TrainedModel:
    """A model and its tokenizer.

    ngrams: the n-grams in its directory, if any, which are mixed in when generating. settings: the
    defaults of a call, and the device and dtype.
    """

    checkpoint: Checkpoint
    ngrams: Ngrams | None
    settings: SampleSettings
    # By `window` and `draft`, so that the weights are prepared only once for each.
    _engines: dict[tuple[str, int], Engine] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        mixed = " with n-grams" if self.ngrams else ""
        return (
            f"<{type(self).__name__} of {self.model.n_parameters():,} parameters{mixed}, "
            f"{self.tokenizer.vocab_size:,} tokens, on {self.settings.device}>"
        )

    @property
    def model(self) -> Model:
        """The torch module: token ids (B, T) to logits (B, T, V)."""
        return self.checkpoint.model

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids (`encode`) and back (`decode`)."""
        return self.checkpoint.tokenizer

    def generate(self, prompt: str = "", **settings: Any) -> str:
        """Generate text. Returns the prompt and its continuation.

        prompt: empty: the start of a text, as in the training data. settings: those of `sample` in
        config.yaml, such as `max_new_tokens=200, temperature=0.8, top_k=50, seed=1,
        stop=["the end"]`.

        Errors: UserError if the prompt isn't a string or has characters that aren't in the
        vocabulary, for an unknown setting, and for a value out of range.
        """
        tokens, call = self._prompt(prompt, settings)
        return self.tokenizer.decode(tokens) + "".join(self._pieces(tokens, call))

    def stream(self, prompt: str = "", **settings: Any) -> Iterator[str]:
        """Generate text piece by piece: the same continuation as `generate`, without the prompt.

        Errors: as for `generate`, raised before the first piece.
        """
        return self._pieces(*self._prompt(prompt, settings))

    @undisturbed()
    @torch.inference_mode()
    def loss(self, text: str) -> float:
        """Compute the mean loss of a text in nats per token, without n-grams.

        The first token isn't predicted. The text is read in windows of block_size tokens, as in
        evaluation, in float32.

        Errors: UserError for fewer than two tokens, and for characters that aren't in the
        vocabulary.
        """
        _check_text(text, "loss")
        ids = torch.from_numpy(self.tokenizer.encode(text).astype("int64"))
        if len(ids) < 2:
            raise UserError("loss: fewer than two tokens; use a longer text")
        self.model.eval()
        block_size, nats = self.model.settings.block_size, 0.0
        for first in range(0, len(ids) - 1, block_size):
            window = ids[first : first + block_size + 1].to(self.settings.device)
            logits = self.model(window[None, :-1])[0].float()
            nats += F.cross_entropy(logits, window[1:], reduction="sum").item()
        return nats / (len(ids) - 1)

    def _prompt(self, text: str, given: dict[str, Any]) -> tuple[list[int], SampleSettings]:
        _check_text(text, "prompt")
        for name in NOT_OF_A_CALL:
            if name in given:
                raise UserError(f"{name}: can't be set for a single text; remove it")
        try:
            settings = SampleSettings.model_validate({**self.settings.model_dump(), **given})
        except ValidationError as error:
            raise UserError(explain(error, SampleSettings)) from None
        if not text:
            return default_prompt(self.tokenizer, self.checkpoint.start), settings
        return encode_prompt(self.tokenizer, text, settings.unknown, "prompt"), settings

    def _pieces(self, tokens: list[int], settings: SampleSettings) -> Iterator[str]:
        # Removed while in use, so that no other thread uses it too.
        kind = settings.window, settings.draft
        engine = self._engines.pop(kind, None)
        if engine is None or engine.sequences:  # another stream uses it
            engine = engine_of(self.model, settings, self.tokenizer, self.ngrams)
        pieces = stream_prompt(engine, Prompt(tokens, settings))
        self._engines[kind] = engine
        return pieces


@undisturbed()
def load(path: str | Path, device: str = "auto", dtype: str = "float32") -> TrainedModel:
    """Load a trained model.

    path: a model directory, such as results/shakespeare_char/model; or the name of a run, in the
    project's directory. device: auto, cpu, cuda, cuda:N or mps. dtype: float32,
    bfloat16, float16, int8 or auto.

    Errors: UserError for a directory without a model, a run that isn't trained yet, a damaged file,
    and a device that isn't available.
    """
    try:
        settings = resolve(SampleSettings.model_validate({"device": device, "dtype": dtype}))
    except ValidationError as error:
        raise UserError(explain(error, SampleSettings)) from None
    directory, run = find_model(path)
    check_model(directory, run)
    with torch.random.fork_rng(devices=[]):  # creating the model draws random weights
        checkpoint = load_model(directory, settings.device)
    return TrainedModel(checkpoint, find_ngrams(directory), settings)


def _check_text(text: object, where: str) -> None:
    """Raise UserError for anything but a valid string."""
    if not isinstance(text, str):
        raise UserError(f"{where}: should be a string (found {type(text).__name__})")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(
            f"{where}: has a lone surrogate, which isn't a valid character; remove or replace it"
        )
