"""Add a run or a dataset that a command or a form defines, as a fragment."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nanogpt.config.fragments import merge_fragments, write_fragment
from nanogpt.config.loading import add_fragments, find_texts, load, read, read_mapping
from nanogpt.config.schema import Config
from nanogpt.config.variants import Given, Variant
from nanogpt.errors import UserError
from nanogpt.files.locks import hold
from nanogpt.project import HERE, Project


def show_command(
    command: str, base: str, given: Sequence[Given], name: str = "", path: str = ""
) -> str:
    """Return the command line that makes a variant. name: the new one's. path: of its text."""
    words = [base, *([path] if path else []), *(f"--{one.name}={one.value}" for one in given)]
    if name:
        words.append(f"--{'output' if command == 'prepare' else 'name'}={name}")
    return shlex.join(["nanogpt", command, *words])


def add_variant(
    vary: Callable[[Config], Variant], made_by: str, project: Project = HERE
) -> tuple[Variant, Path | None]:
    """Make a variant, and write its fragment unless it already exists. Returns both.

    vary: makes the variant from a config. made_by: the command line, for a comment. Of several
    processes that add the same variant, only one writes the fragment.
    """
    variant = vary(read(project.config_file))
    if not variant.entries:
        return variant, None
    with hold(project.fragments_lock, f"adding {variant.name}"):
        variant = vary(read(project.config_file))  # another process may have added it
        return variant, _write(variant, made_by, project) if variant.entries else None


def remove_unused(fragments: Iterable[Path], project: Project = HERE) -> None:
    """Remove fragments, in this order, except those that other entries of the config need."""
    with hold(project.fragments_lock, "removing entries"):
        for path in fragments:
            if path.is_file() and _is_unused(path, project):
                path.unlink()


def _is_unused(fragment: Path, project: Project) -> bool:
    """Whether the config is valid without a fragment."""
    mapping = read_mapping(project.config_file)
    try:
        add_fragments(mapping, project)
        for kind, entries in read_mapping(fragment).items():
            mapping[kind] = {name: mapping[kind][name] for name in mapping[kind].keys() - entries}
        load(mapping, find_texts(project), project)
    except UserError:
        return False
    return True


def _write(variant: Variant, made_by: str, project: Project) -> Path:
    """Write a variant's fragment, after checking the config with it."""
    path = project.fragments / f"{variant.name}.yaml"
    if path.exists():
        raise UserError(
            f"{path}: already exists, with other entries; move it away, or choose another name"
        )
    mapping = read_mapping(project.config_file)
    add_fragments(mapping, project)
    merge_fragments(mapping, {path: variant.entries})
    load(mapping, find_texts(project), project)
    write_fragment(path, variant.entries, made_by)
    return path
