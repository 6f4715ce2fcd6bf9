"""The application that all commands belong to, and how a result is printed as JSON."""

import json

import tyro

app = tyro.extras.SubcommandApp()


def print_json(value: object) -> None:
    """Print a JSON value for people and programs."""
    print(json.dumps(value, indent=2))
