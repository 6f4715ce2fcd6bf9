"""Fragments: YAML files that commands write to add entries to those of config.yaml."""

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

    Errors: UserError for a name in two files, and for keys other than MAPS.
    """
    sources: dict[tuple[str, Any], object] = {}
    for path, fragment in fragments.items():
        for kind, entries in fragment.items():
            if str(kind).startswith("x-"):
                continue
            if kind not in MAPS:
                raise UserError(
                    f"{path}: `{kind}` isn't allowed here, only "
                    f"{', '.join(f'`{m}`' for m in MAPS)}; move it to {CONFIG}"
                )
            if not isinstance(entries, dict | None):
                raise UserError(f"{path}: {kind}: should be a mapping from names to settings")
            known = mapping.get(kind) or {}
            if not isinstance(known, dict):  # an error later, when the config is checked
                continue
            for name in entries or {}:
                if name in known:
                    other = sources.get((kind, name), CONFIG)
                    raise UserError(
                        f"{path}: {kind}: `{name}` is also in {other}; rename or remove one of them"
                    )
                sources[kind, name] = path
            mapping[kind] = {**known, **(entries or {})}


def write_fragment(path: Path, entries: Mapping[str, Mapping[str, Any]], made_by: str) -> None:
    """Write a fragment. entries: by map and name. made_by: the command line, for a comment."""
    text = _dump(entries, allow_unicode=True)
    if yaml.safe_load(text) != entries:  # line ends that YAML writes but doesn't read back
        text = _dump(entries, allow_unicode=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON, so that a line feed in a flag doesn't end the comment.
    write_text(path, f"# Made by {json.dumps(made_by)}; read after config.yaml.\n{text}")


def _dump(entries: Mapping[str, Mapping[str, Any]], allow_unicode: bool) -> str:
    text: str = yaml.safe_dump(
        dict(entries), sort_keys=False, allow_unicode=allow_unicode, width=1000
    )
    return text
