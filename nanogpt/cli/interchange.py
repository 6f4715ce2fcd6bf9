"""Commands for other programs' formats: export, import."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from nanogpt.cli.app import app, examples, named, optional
from nanogpt.config.loading import read
from nanogpt.config.trained import check_model, find_model
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project

DATASET = "dataset"


@app.command
@examples(
    "export",
    "nanogpt export demo exported --to huggingface",
    "nanogpt export results/demo/model demo.gguf --to gguf",
    "nanogpt export dataset results/datasets/playwright ../nanoGPT/data/playwright",
)
def export(
    source: Annotated[Positional[str], named("MODEL")],
    destination: Annotated[Positional[Path], named("DESTINATION")],
    dataset_destination: Annotated[Positional[Path | None], optional("[DIRECTORY]")] = None,
    to: Annotated[
        Literal["huggingface", "gguf", "nanogpt"] | None, optional("{huggingface,gguf,nanogpt}")
    ] = None,
) -> None:
    """Convert a model for another program, or a dataset for nanoGPT.

    Args:
        source: a run or a model directory such as results/demo/model; or the word `dataset`.
        destination: the directory to create, or for gguf the .gguf file; after `dataset`: the
            dataset, such as results/datasets/shakespeare_char.
        dataset_destination: after `dataset`: the directory for nanoGPT, such as nanoGPT/data/mine.
        to: huggingface: for transformers; gguf: for llama.cpp, Ollama and LM Studio; nanogpt: a
            checkpoint for nanoGPT's sample.py.
    """
    if dataset_destination is not None:
        _export_dataset(source, destination, dataset_destination, to)
        return
    if source == DATASET and not Path(source).exists():
        raise UserError(
            "export dataset: arguments are missing; give a dataset and a directory to write it to"
        )
    if to is None:
        raise UserError("export: --to is missing; use --to huggingface, --to gguf or --to nanogpt")
    if to == "huggingface":
        from nanogpt.interchange.hugging_face_export import export_hugging_face as write
    elif to == "gguf":
        from nanogpt.interchange.gguf_files import export_gguf as write
    else:
        from nanogpt.interchange.nanogpt_checkpoints import export_nanogpt as write
    directory, run = find_model(source)
    check_model(directory, run)
    print(f"{destination}: {write(directory, destination)}")


def _export_dataset(word: str, source: Path, destination: Path, to: str | None) -> None:
    """Export a dataset in nanoGPT's format."""
    from nanogpt.interchange.nanogpt_data import export_dataset

    if word != DATASET:
        raise UserError(
            f"export: unexpected argument `{destination}`; give only a model and a destination"
        )
    if to not in (None, "nanogpt"):
        raise UserError(f"export dataset: datasets are only exported for nanoGPT; remove --to {to}")
    print(f"{destination}: {export_dataset(source, destination)}")


@app.command(name="import")
@examples(
    "import",
    "nanogpt import gpt2 models/gpt2 --from huggingface",
    "nanogpt import ../nanoGPT/out-shakespeare-char models/theirs --from nanogpt",
)
def import_model(
    source: Annotated[Positional[str], named("SOURCE")],
    destination: Annotated[Positional[Path], named("DIRECTORY")],
    from_: Annotated[Literal["huggingface", "nanogpt"], tyro.conf.arg(name="from")],
    meta: Annotated[Path | None, optional("PATH")] = None,
    config_file: Path = HERE.config_file,
) -> None:
    """Convert a model of another program to a model directory.

    Args:
        source: for huggingface: a directory written by transformers, or gpt2, gpt2-medium,
            gpt2-large or gpt2-xl to download; for nanogpt: a ckpt.pt, or its directory.
        destination: the directory to create, such as models/theirs.
        from_: the model's format.
        meta: for nanogpt: the vocabulary, if it isn't data/<dataset>/meta.pkl in the checkout.
        config_file: the config file, for `mirrors`.
    """
    from nanogpt.interchange.imports import import_hugging_face, import_nanogpt

    project = Project.of(config_file)
    mirrors = read(config_file).mirrors if config_file.exists() else []
    if from_ == "huggingface":
        if meta is not None:
            raise UserError("import: --meta is only for --from nanogpt; remove it")
        line = import_hugging_face(source, destination, project, mirrors)
    else:
        line = import_nanogpt(Path(source), destination, meta, project, mirrors)
    print(f"{destination}: {line}")
