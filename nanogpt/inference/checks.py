"""Checks, before a training begins, of what would fail after it.

They decide whether a training starts, and nothing of what it gives.
"""

from pathlib import Path

from nanogpt.artifacts.records.base import JsonObject
from nanogpt.config.parameters import complete
from nanogpt.config.schema import SampleSettings
from nanogpt.errors import UserError


def check_prompt(run: str, dataset: Path, sample: JsonObject) -> None:
    """UserError for a prompt that the samples of a run on this dataset could not begin with.

    sample: the run's settings of that group, as parameters.
    """
    # Inside: the code of prompts is no part of a training's.
    from nanogpt.data.saved_tokenizers import load_tokenizer
    from nanogpt.inference.prompts import encode_prompts

    settings = complete(SampleSettings, sample)
    try:
        encode_prompts(load_tokenizer(dataset / "tokenizer.json"), settings)
    except UserError as error:
        raise UserError(f"runs.{run}.{error}") from None
