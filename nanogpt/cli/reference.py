"""Commands that print reference pages and the version: settings, schema, version."""

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
