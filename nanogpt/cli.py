"""The command line: `nanogpt <command>`, with flags and help from config.py.

A command calls one function of the package; torch is imported only by those that compute with it.
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import ValidationError
from tyro.conf import Positional

from nanogpt import __version__, config, manifest
from nanogpt.config import SampleSettings, UserError

app = tyro.extras.SubcommandApp()


@app.command(name="config")
def show_config(run: Positional[str], config_file: Path = Path("config.yaml")) -> None:
    """Print what a run resolves to, and where each value is from.

    Args:
        run: name of a run, or of a dataset, or of a text in resources/texts/.
        config_file: the config file.
    """
    print(config.describe_run(config.read(config_file), run), end="")


@app.command
def sample(
    model: Positional[Path],
    settings: Annotated[SampleSettings, tyro.conf.arg(name="")] = SampleSettings(),  # noqa: B008
) -> None:
    """Draw samples from a model directory, streaming them to the terminal.

    Args:
        model: a model directory, such as results/demo/model.
        settings: how to sample.
    """
    from nanogpt import device
    from nanogpt.checkpoint import load_model
    from nanogpt.generate import stream

    resolved = SampleSettings(**device.resolve(settings.model_dump()))
    for piece in stream(load_model(model, resolved.device), resolved):
        print(piece, end="", flush=True)


@app.command
def tokenize(tokenizer: Positional[Path], text: Positional[str] = "-") -> None:
    """Show a text as tokens: a line for each, with its id and its text.

    Args:
        tokenizer: a dataset, a model or a tokenizer.json, such as results/datasets/shakespeare.
        text: the text, or FILE:path of a UTF-8 file; -: standard input.
    """
    from nanogpt.corpus import read_text
    from nanogpt.tokenizer import load_tokenizer

    known = load_tokenizer(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer)
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8")
    elif text.startswith("FILE:"):
        text = read_text(Path(text.removeprefix("FILE:")))
    tokens = known.encode(text)
    for token in tokens.tolist():
        data = known.to_bytes([token])
        try:
            shown = repr(data.decode("utf-8"))
        except UnicodeDecodeError:  # a part of a character
            shown = repr(data)
        print(f"{token:>6}  {shown}")
    n_bytes = len(text.encode("utf-8"))
    ratio = f", {n_bytes / len(tokens):.2f} bytes a token" if len(tokens) else ""
    print(f"{len(tokens)} tokens of {known.vocab_size}, {len(text)} characters{ratio}")


@app.command
def export(
    what: Positional[Literal["dataset"]],  # noqa: ARG001
    source: Positional[Path],
    destination: Positional[Path],
) -> None:
    """Write a dataset in the form that nanoGPT reads.

    Args:
        what: what is exported.
        source: a dataset, such as results/datasets/shakespeare_char.
        destination: a directory of nanoGPT's, such as nanoGPT/data/mine.
    """
    from nanogpt.interchange import export_dataset

    export_dataset(source, destination)


@app.command
def verify(paths: Positional[tuple[Path, ...]] = (Path("results"), Path("resources"))) -> None:
    """Hold every manifest below some paths against the files; exit code 1 if one differs.

    Args:
        paths: directories or manifests; the project's directory is where this must be called.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or directory")
    manifests = manifest.find_manifests(paths)
    if not manifests:
        raise UserError(f"{', '.join(map(str, paths))}: no manifest there; run the workflow first")
    problems = sorted({problem for path in manifests for problem in manifest.verify(path)})
    print("\n".join([*problems, f"{len(manifests)} manifests, {len(problems)} problems"]))
    if problems:
        sys.exit(1)


@app.command
def settings() -> None:
    """Print docs/SETTINGS.md: every setting with its default and meaning."""
    print(config.settings_page(), end="")


@app.command
def schema() -> None:
    """Print the JSON schema of config.yaml, for editors."""
    print(json.dumps(config.json_schema(), indent=2))


@app.command
def version() -> None:
    """Print the version."""
    print(__version__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends it with one line and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app.cli(prog="nanogpt", description=__doc__.partition("\n")[0], args=arguments)
    except (UserError, ValidationError) as error:
        message = str(error) if isinstance(error, UserError) else config.explain(error)
        sys.exit(f"error: {message}")
    except UnicodeError as error:  # in a text given on the command line or to standard input
        sys.exit(f"error: not UTF-8: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
