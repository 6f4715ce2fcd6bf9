"""Arguments of `nanogpt plan` and `nanogpt why`."""

import json

from tests.mistakes.base import CONFIG, TEXT, command, in_turn, write_files
from tests.mistakes.verification import MANIFEST, make_manifest


def make_config() -> None:
    """A config.yaml with the run `first`."""
    write_files({"config.yaml": CONFIG, "text.txt": TEXT})


def make_other_stage() -> None:
    """The manifest of a stage of another kind, of the run `other`."""
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
        "a plan of an unknown run",
        "plan fist",
        "runs: no run `fist`; did you mean `first`?",
        make_config,
    ),
    command(
        "why, of an unknown run",
        "why fist",
        "why: no run `fist`; did you mean `first`?",
        make_config,
    ),
    command(
        "why, of nothing",
        "why",
        "why: 0 paths; name one result, or two to compare",
        make_config,
    ),
    command(
        "why, of three results",
        "why first first first",
        "why: 3 paths; name one result, or two to compare",
        make_config,
    ),
    command(
        "why, of a file that no rule makes",
        "why results/first/notes.txt",
        "results/first/notes.txt: no rule makes it, as config.yaml is now; name a file or a "
        "directory of a run or dataset, or a run",
        make_config,
    ),
    command(
        "why, of a run that config.yaml doesn't have any more",
        "why results/demo/samples.txt",
        "results/demo/samples.txt: no rule makes it, as config.yaml is now; name a file or a "
        "directory of a run or dataset, or a run",
        in_turn(make_config, make_manifest),
    ),
    command(
        "why two results differ, of which one isn't there",
        "why results/demo/samples.txt results/second/samples.txt",
        "results/second/samples.txt: no such file or directory; name results that were made",
        in_turn(make_config, make_manifest),
    ),
    command(
        "why two results differ, of which one has no manifest",
        "why results/demo/samples.txt text.txt",
        "text.txt: no manifest says how it was made; name a result of the workflow",
        in_turn(make_config, make_manifest),
    ),
    command(
        "why two results of different kinds differ",
        "why results/demo/samples.txt results/other/eval.json",
        "results/demo/samples.txt is a result of sample, results/other/eval.json of eval; name two "
        "results of one kind",
        in_turn(make_config, make_manifest, make_other_stage),
    ),
]
