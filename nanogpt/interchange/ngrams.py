"""N-grams that a run mixes with its GPT: no other program's format of a model can hold them."""

from pathlib import Path

from nanogpt.errors import UserError
from nanogpt.ngram.counts import FILE_NAME


def refuse_ngrams(model_directory: Path, form: str) -> None:
    """Called before a model is written in another program's format, `form`.

    Errors: UserError if n-grams lie beside the model, whose samples the copy couldn't draw.
    """
    path = model_directory / FILE_NAME
    if path.exists():
        raise UserError(
            f"{path}: {form} can't hold the n-grams that are mixed with this model; export the "
            "model of a run without `ngram`, or remove the file to export the GPT alone"
        )
