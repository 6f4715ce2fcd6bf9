"""Fragments: entries that commands add to config.yaml's, a YAML file for each name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nanogpt.errors import UserError
from nanogpt.files.atomic import write_text

# The maps that a fragment can add entries to.
MAPS = ("corpora", "datasets", "models", "runs")
CONFIG = "config.yaml"


def merge_fragments(mapping: dict[Any, Any], fragments: Mapping[Path, Mapping[Any, Any]]) -> None:
    """Add the entries of fragments to the mapping of config.yaml, in place.

    Errors: UserError for a name that two files have, and for anything but entries of MAPS.
    """
    sources: dict[tuple[str, Any], object] = {}
    for path, fragment in fragments.items():
        for kind, entries in fragment.items():
            if str(kind).startswith("x-"):
                continue
            if kind not in MAPS:
                raise UserError(
                    f"{path}: `{kind}` can't be here, only {', '.join(MAPS)}; move it to {CONFIG}"
                )
            if not isinstance(entries, dict | None):
                raise UserError(f"{path}: {kind}: should be a mapping of names")
            known = mapping.get(kind) or {}
            if not isinstance(known, dict):  # which is refused later
                continue
            for name in entries or {}:
                if name in known:
                    other = sources.get((kind, name), CONFIG)
                    raise UserError(
                        f"{path}: {kind}: `{name}` is in {other} too; rename or remove one of them"
                    )
                sources[kind, name] = path
            mapping[kind] = {**known, **(entries or {})}


def write_fragment(path: Path, entries: Mapping[str, Mapping[str, Any]], made_by: str) -> None:
    """Write a fragment. entries: by map and name. made_by: the command that asked for it."""
    text = _dump(entries, allow_unicode=True)
    if yaml.safe_load(text) != entries:  # line ends that YAML writes and doesn't read
        text = _dump(entries, allow_unicode=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As JSON: a line feed in a flag must not end the comment.
    write_text(path, f"# Made by {json.dumps(made_by)}; read after config.yaml.\n{text}")


def _dump(entries: Mapping[str, Mapping[str, Any]], allow_unicode: bool) -> str:
    text: str = yaml.safe_dump(
        dict(entries), sort_keys=False, allow_unicode=allow_unicode, width=1000
    )
    return text
