"""Read a model from any source: a directory of nanogpt or transformers, or GPT-2 by name."""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.config.initial import GPT2_SIZES
from nanogpt.errors import UserError
from nanogpt.interchange.gpt2_downloads import download_gpt2, download_tokenizer
from nanogpt.interchange.hugging_face_files import read_config, read_hugging_face
from nanogpt.model.checkpoints import Checkpoint, load_model
from nanogpt.project import HERE, Project


def read_source(
    source: str | Path, project: Project = HERE, mirrors: Sequence[str] = ()
) -> Checkpoint:
    """Read a model and its tokenizer, on the CPU and in float32.

    source: a model directory of nanogpt or transformers (GPT-2 or NanoChat), or one of gpt2,
    gpt2-medium, gpt2-large and gpt2-xl, which is downloaded to the project's resources/ if it
    isn't there. A directory with such a name takes precedence. mirrors: those in config.yaml.

    Errors: UserError for any other source, and for files that are missing, damaged or don't match.
    """
    directory = Path(source)
    if str(source) in GPT2_SIZES and not directory.exists():
        files = download_gpt2(str(source), project, mirrors)
        return read_hugging_face(files, download_tokenizer(project, mirrors))
    if not (directory / "config.json").exists():
        raise UserError(
            f"{source}: not a model directory: config.json is missing; name a model directory, or "
            f"one of {', '.join(GPT2_SIZES)}"
        )
    if "architecture" in read_config(directory / "config.json"):
        return load_model(directory)
    return read_hugging_face(directory)
