"""Arguments of `nanogpt plan` and `nanogpt why`."""

import json

from tests.mistakes.base import CONFIG, TEXT, command, in_turn, write_files
from tests.mistakes.verification import MANIFEST, make_manifest


def make_config() -> None:
    """Write a config.yaml with the run `first`."""
    write_files({"config.yaml": CONFIG, "text.txt": TEXT})


def make_other_stage() -> None:
    """Write the manifest of another stage, for the run `other`."""
    content = json.loads(MANIFEST.read_text()) | {"stage": "eval"}
    outputs = {"results/other/eval.json": "0" * 64}
    write_files(
        {
            "results/other/eval.json": "{}",
            "results/other/eval.manifest.json": json.dumps(content | {"outputs": outputs}),
        }
    )


PLANNING = [
    command(
        "planning an unknown run",
        "plan fist",
        "runs: no run `fist`; did you mean `first`?",
        make_config,
    ),
    command(
        "`why` for an unknown run",
        "why fist",
        "why: no run `fist`; did you mean `first`?",
        make_config,
    ),
    command(
        "`why` without a path",
        "why",
        "why: 0 paths given; give one result to explain, or two to compare",
        make_config,
    ),
    command(
        "comparing with a run without results",
        "why first frist",
        "frist: no results of this name; did you mean `first`?",
        lambda: write_files(
            {"config.yaml": CONFIG, "results/first/train.manifest.json": "not read"}
        ),
    ),
    command(
        "`why` with three paths",
        "why first first first",
        "why: 3 paths given; give one result to explain, or two to compare",
        make_config,
    ),
    command(
        "`why` for a file that no rule makes",
        "why results/first/notes.txt",
        "results/first/notes.txt: no rule makes it with the current config.yaml; give a run, or a "
        "file or directory of a run or dataset",
        make_config,
    ),
    command(
        "`why` for a run that config.yaml no longer has",
        "why results/demo/samples.txt",
        "results/demo/samples.txt: no rule makes it with the current config.yaml; give a run, or "
        "a file or directory of a run or dataset",
        in_turn(make_config, make_manifest),
    ),
    command(
        "comparing with a missing result",
        "why results/demo/samples.txt results/second/samples.txt",
        "results/second/samples.txt: no such file or directory; give existing results",
        in_turn(make_config, make_manifest),
    ),
    command(
        "comparing with a file without a manifest",
        "why results/demo/samples.txt text.txt",
        "text.txt: no manifest found, so it's not known how it was made; give a result of the "
        "workflow",
        in_turn(make_config, make_manifest),
    ),
    command(
        "comparing results of different kinds",
        "why results/demo/samples.txt results/other/eval.json",
        "results/demo/samples.txt was made by sample, but results/other/eval.json by eval; give "
        "two results of the same kind",
        in_turn(make_config, make_manifest, make_other_stage),
    ),
]
