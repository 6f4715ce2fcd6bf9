"""Commands that print reference pages and the version: settings, schema, version."""

from typing import Literal

from tyro.conf import Positional

from nanogpt import __version__
from nanogpt.cli.app import app, print_json
from nanogpt.config.reference import json_schema, settings_page


@app.command
def settings() -> None:
    """Print docs/SETTINGS.md: every setting with its default and meaning."""
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
    """Print what a shell needs to complete commands and flags.

    For bash: `nanogpt completion bash > ~/.local/share/bash-completion/completions/nanogpt`, and
    a new shell. The same as `nanogpt --tyro-print-completion bash`.

    Args:
        shell: the shell.
    """
    app.cli(prog="nanogpt", args=["--tyro-print-completion", shell])
