"""Import a model from another program into a nanogpt model directory: `nanogpt import`."""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.errors import UserError
from nanogpt.interchange.destinations import IMPORT_MARK, Mark, check_directory, whole_directory
from nanogpt.interchange.gpt2_downloads import download_tokenizer
from nanogpt.interchange.hugging_face_files import read_config
from nanogpt.interchange.initial_models import write_import
from nanogpt.interchange.nanogpt_checkpoints import read_nanogpt
from nanogpt.interchange.sources import read_source
from nanogpt.model.checkpoints import Checkpoint
from nanogpt.project import HERE, Project


def import_hugging_face(
    source: str, destination: Path, project: Project = HERE, mirrors: Sequence[str] = ()
) -> str:
    """Import a GPT-2 or NanoChat of transformers, or a GPT-2 by name.

    Returns a one-line summary. mirrors: those in config.yaml.

    Errors: those of `read_source`, and UserError for a destination with other files.
    """
    check_directory(destination, IMPORT_MARK)
    config = Path(source) / "config.json"
    if config.exists() and "architecture" in read_config(config):
        raise UserError(f"{source}: already a model directory of nanogpt; use it without importing")
    return _write(read_source(source, project, mirrors), destination, "huggingface", source)


def import_nanogpt(
    source: Path,
    destination: Path,
    meta: Path | None = None,
    project: Project = HERE,
    mirrors: Sequence[str] = (),
) -> str:
    """Import a checkpoint of nanoGPT; return a one-line summary.

    meta: its meta.pkl, if it isn't where nanoGPT puts it.

    Errors: those of `read_nanogpt`, and UserError for a destination with other files.
    """
    check_directory(destination, IMPORT_MARK)
    checkpoint = read_nanogpt(source, meta)
    tokenizer = checkpoint.vocabulary or download_tokenizer(project, mirrors)
    return _write(checkpoint.with_tokenizer(tokenizer), destination, "nanogpt", str(source))


def _write(checkpoint: Checkpoint, destination: Path, kind: str, source: str) -> str:
    """Write a model directory and its mark; return a one-line summary."""
    mark = Mark(kind=kind, source=source)
    with whole_directory(destination, IMPORT_MARK, mark) as temporary:
        return write_import(checkpoint, temporary, source)
