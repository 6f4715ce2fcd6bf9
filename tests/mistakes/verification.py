"""Problems that `nanogpt verify` finds."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt.artifacts import manifests
from nanogpt.cli.main import main
from nanogpt.project import HERE
from tests.mistakes.base import TEXT, Mistake, command, write_files
from tests.mistakes.materials import edit_json

MANIFEST = Path("results/demo/sample.manifest.json")


def make_manifest() -> None:
    """Create a result `samples.txt` with its manifest."""
    write_files({"results/demo/samples.txt": TEXT})
    parameters, code = {"top_k": 200}, 64 * "c"
    manifest = {
        "stage": "sample",
        "version": manifests.version("sample", parameters, {}, code),
        "inputs": {},
        "parameters": parameters,
        "code": code,
        "outputs": manifests.digests(HERE, ["results/demo/samples.txt"]),
        "environment": manifests.environment(threads=1).model_dump(exclude_unset=True),
        "wall_seconds": 1.0,
    }
    MANIFEST.write_text(json.dumps(manifest))


def differs(title: str, shown: str, damage: Callable[[], object], message: str) -> Mistake:
    """A changed file that `nanogpt verify` finds."""

    def make() -> str:
        make_manifest()
        damage()
        with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as end:
            main(["verify", "results"])
        assert end.value.code == 1
        problem, _ = printed.getvalue().splitlines()  # the last line is the total
        return problem

    return Mistake(title, shown, make, message)


VERIFICATION = [
    command(
        "a path that doesn't exist",
        "verify nowhere",
        "nowhere: no such file or directory; use a directory of results, or a manifest",
    ),
    command(
        "a path without manifests",
        "verify results",
        "results: no manifests found; run the workflow first",
        lambda: write_files({"results/README.md": ""}),
    ),
    differs(
        "a changed result",
        "`samples.txt` edited",
        lambda: write_files({"results/demo/samples.txt": "Better."}),
        "results/demo/samples.txt: wrong sha256: expected 30a2bfe5d426, found 532070814ac9 "
        "(output recorded in results/demo/sample.manifest.json)",
    ),
    differs(
        "a missing result",
        "`samples.txt` removed",
        Path("results/demo/samples.txt").unlink,
        "results/demo/samples.txt: missing (output recorded in results/demo/sample.manifest.json)",
    ),
    differs(
        "a truncated manifest",
        "`sample.manifest.json` cut in half",
        lambda: MANIFEST.write_text('{"stage'),
        "results/demo/sample.manifest.json: damaged: not JSON; delete the file and run the "
        "workflow again",
    ),
    differs(
        "a manifest of a later version of nanogpt",
        '`"format": 9` in it',
        lambda: edit_json(MANIFEST, format=9),
        "results/demo/sample.manifest.json: format 9, but this version of nanogpt reads formats "
        "up to 1; upgrade nanogpt, or delete the file and run the workflow again",
    ),
    differs(
        "an edited manifest",
        '`"top_k": 1` set in it',
        lambda: edit_json(MANIFEST, parameters={"top_k": 1}),
        "results/demo/sample.manifest.json: edited: it's for version a8e6caa48ed2, but its "
        "contents are those of version 1fe728e2e728",
    ),
]
