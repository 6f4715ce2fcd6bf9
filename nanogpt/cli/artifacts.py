"""Commands about files on the disk: verify, cache."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from nanogpt.artifacts.verification import verify_files
from nanogpt.cli.app import app, examples, optional, print_json
from nanogpt.config.loading import read
from nanogpt.errors import UserError, plural
from nanogpt.project import HERE, Project


@app.command
@examples("verify", "nanogpt verify", "nanogpt verify results/shakespeare_char --json")
def verify(
    paths: Positional[tuple[Path, ...]] = (HERE.results, HERE.resources),
    all: bool = False,
    json: bool = False,
) -> None:
    """Check files against their manifests, including everything upstream.

    Prints a line for each file that differs. The exit code is 1 if there are any. A file that
    hasn't changed since it was last checked isn't read again.

    Args:
        paths: directories or manifests, in the project's directory.
        all: read every file again, to find damage by a disk.
        json: print the manifests that were read and the problems as JSON.
    """
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: no such file or directory; use a directory of results, or a manifest"
            )
    checked = verify_files(HERE, paths, read_all=all)
    if not checked.manifests:
        raise UserError(f"{', '.join(map(str, paths))}: no manifests found; run the workflow first")
    problems = checked.problems
    if json:
        print_json(
            {
                "manifests": list(map(str, checked.manifests)),
                "problems": list(map(asdict, problems)),
                "unchanged": checked.n_unchanged,
            }
        )
    else:
        for problem in problems:
            print(problem)
        of_all = f"{plural(len(checked.manifests), 'manifest')}, {plural(len(problems), 'problem')}"
        unchanged = f"{plural(checked.n_unchanged, 'unchanged file')} not read again"
        print(f"{of_all} ({unchanged})" if checked.n_unchanged else of_all)
    if problems:
        sys.exit(1)


@app.command(name="cache")
@examples(
    "cache",
    "nanogpt cache ls",
    "nanogpt cache prune --older-than=30",
    "nanogpt cache prune --older-than=30 --results --yes",
)
def show_cache(
    action: Positional[Literal["ls", "prune"]],
    config_file: Path = HERE.config_file,
    older_than: Annotated[float | None, optional("DAYS")] = None,
    max_size: Annotated[float | None, optional("MB")] = None,
    results: bool = False,
    yes: bool = False,
) -> None:
    """List or remove cached artifacts, unfinished trainings and old results.

    Pruning removes unfinished trainings that config.yaml no longer has, damaged artifacts, records
    of code that made nothing that still exists, and leftovers of killed processes. A running
    training is kept. The options add finished artifacts and results.

    Args:
        action: ls: list everything; prune: list what would be removed, or remove it with --yes.
        config_file: the config file.
        older_than: also prune artifacts that weren't used for this many days.
        max_size: also prune the least recently used artifacts, down to this many megabytes.
        results: also prune results of runs and datasets that config.yaml doesn't have.
        yes: with prune: remove the items.
    """
    from nanogpt.cli import pruning

    for option, amount in (("--older-than", older_than), ("--max-size", max_size)):
        if amount is not None and not amount >= 0:
            raise UserError(f"{option}: should be 0 or more (found `{amount:g}`)")
    project = Project.of(config_file)
    items = pruning.find_items(project, read(config_file))
    if action == "prune":
        days = None if older_than is None else older_than * pruning.DAY
        n_bytes = None if max_size is None else max_size * 1e6
        items = pruning.to_prune(items, days, n_bytes, results)
    for item in items:
        unused = f" ({item.unused})" if item.unused else ""
        print(f"{_size(item.size):>9} {_age(item.age):>9} {item.kind:<9} {item.what}{unused}")
        if action == "prune" and yes:
            try:
                pruning.remove(project, item)
            except OSError as error:
                print(f"{item.path}: can't be removed: {error.strerror}", file=sys.stderr)
    total = f"{plural(len(items), 'item')}, {_size(sum(item.size for item in items))}"
    outcome = "" if action == "ls" else ", removed" if yes else "; add --yes to remove them"
    print(total + (outcome if items else ""))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def _age(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return plural(int(seconds / length), unit)
    return plural(int(seconds), "second")
