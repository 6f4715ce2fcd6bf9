"""Commands that print reference material: settings, schema, version, completion."""

from typing import Literal

from tyro.conf import Positional

from nanogpt import __version__
from nanogpt.cli.app import app, print_json
from nanogpt.config.reference import json_schema, settings_page


@app.command
def settings() -> None:
    """Print all settings with their defaults and meanings (docs/SETTINGS.md)."""
    print(settings_page(), end="")


@app.command
def schema() -> None:
    """Print the JSON schema of config.yaml, for editors."""
    print_json(json_schema())


@app.command
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command
def completion(shell: Positional[Literal["bash", "zsh", "tcsh"]]) -> None:
    """Print a script that lets a shell complete commands and flags.

    For bash, run `nanogpt completion bash > ~/.local/share/bash-completion/completions/nanogpt` and
    start a new shell.

    Args:
        shell: the shell to print it for.
    """
    app.cli(prog="nanogpt", args=["--tyro-print-completion", shell])
