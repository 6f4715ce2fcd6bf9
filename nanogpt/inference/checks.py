"""Early checks: problems that would otherwise show only after a training.

They decide whether a training starts, and don't affect its result.
"""

from pathlib import Path

from nanogpt.artifacts.records.base import JsonObject
from nanogpt.config.parameters import complete
from nanogpt.config.schema import SampleSettings
from nanogpt.errors import UserError


def check_prompt(run: str, dataset: Path, sample: JsonObject) -> None:
    """Raise UserError if a run on this dataset couldn't sample from its prompt.

    sample: the run's settings of the group `sample`, as parameters.
    """
    # Imported here, so that training's code digest doesn't include the code for prompts.
    from nanogpt.data.saved_tokenizers import load_tokenizer
    from nanogpt.inference.prompts import encode_prompts

    settings = complete(SampleSettings, sample)
    try:
        encode_prompts(load_tokenizer(dataset / "tokenizer.json"), settings)
    except UserError as error:
        raise UserError(f"runs.{run}.{error}") from None
