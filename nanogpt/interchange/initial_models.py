"""Models of other programs written as ours, for trainings to begin with: the rule import_model.

imports.py is for the command `nanogpt import`, which writes where the user says.
"""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.errors import UserError
from nanogpt.interchange.sources import read_source
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.project import HERE, Project


def import_model(
    source: str, directory: Path, mirrors: Sequence[str] = (), project: Project = HERE
) -> str:
    """Write a model as one of our directories; returns one line for the log.

    source: see `read_source`. mirrors: those of config.yaml.

    Errors: UserError for an ensemble, and for what `read_source` refuses.
    """
    checkpoint = read_source(source, project, mirrors)
    model = checkpoint.model
    if not isinstance(model, GPT):
        raise UserError(f"{source}: an ensemble; name a single model")
    weights, tokenizer = model.state_dict(), checkpoint.tokenizer
    save_model(directory, weights, model.settings, tokenizer, checkpoint.start)
    return f"{source}: {model.n_parameters():,} parameters, {tokenizer.vocab_size:,} tokens"
