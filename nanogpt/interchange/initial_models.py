"""Import models from other programs as initial models for fine-tuning: the rule import_model.

imports.py has the command `nanogpt import`, which writes to a directory chosen by the user.
"""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.errors import UserError, plural
from nanogpt.interchange.sources import read_source
from nanogpt.model.checkpoints import Checkpoint
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.project import HERE, Project


def import_model(
    source: str, directory: Path, mirrors: Sequence[str] = (), project: Project = HERE
) -> str:
    """Write a model as a nanogpt model directory; return one line for the log.

    source: see `read_source`. mirrors: those in config.yaml.

    Errors: UserError for an ensemble, and those of `read_source`.
    """
    sizes = write_import(read_source(source, project, mirrors), directory, source)
    return f"{source}: {sizes}"


def write_import(checkpoint: Checkpoint, directory: Path, source: str) -> str:
    """Write the files of a model directory; return the model's sizes as text.

    source: the model's origin, for error messages.

    Errors: UserError for an ensemble.
    """
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if not isinstance(model, GPT):
        raise UserError(f"{source}: an ensemble; name a single model")
    save_model(directory, model.state_dict(), model.settings, tokenizer, checkpoint.start)
    n_parameters = plural(model.n_parameters(), "parameter")
    return f"{n_parameters}, {plural(tokenizer.vocab_size, 'token')}"
