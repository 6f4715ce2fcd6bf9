"""The command `why`: explain why a result would be made again, or how two results differ."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, optional, print_json
from nanogpt.config.loading import read
from nanogpt.errors import UserError, plural
from nanogpt.project import HERE, Project


@app.command
@examples(
    "why",
    "nanogpt why results/shakespeare_char/samples.txt",
    "nanogpt why shakespeare_char",
    "nanogpt why results/one results/two",
)
def why(
    paths: Annotated[Positional[tuple[str, ...]], optional("PATH [PATH]")],
    config_file: Path = HERE.config_file,
    json: bool = False,
) -> None:
    """Explain why a result would be made again, or how two results differ.

    Args:
        paths: a file or directory of a run or dataset, or a run's name; with two, compare them.
        config_file: the config file.
        json: print JSON instead.
    """
    from nanogpt.planning import explaining
    from nanogpt.planning.comparing import compare
    from nanogpt.planning.restoring import Outcomes
    from nanogpt.planning.staleness import Workflow

    project = Project.of(config_file)
    if len(paths) not in (1, 2):
        raise UserError(
            f"why: {plural(len(paths), 'path')} given; give one result to explain, or "
            "two to compare"
        )
    if len(paths) == 2:
        first, second = (explaining.existing_path(project, path) for path in paths)
        compared = compare(project, first, second)
        if json:
            print_json([asdict(one) for one in compared])
        else:
            print(*explaining.explain_comparison(*paths, compared), sep="\n")
        return
    workflow = Workflow(read(config_file), project)
    path, targets, files = explaining.find_targets(workflow, paths[0])
    verdicts = workflow.plan(targets, files)
    outcomes = Outcomes(workflow).find(verdicts)
    if json:
        print_json(explaining.verdicts_as_json(path, verdicts, outcomes))
    else:
        print(*explaining.explain(path, targets, verdicts, outcomes), sep="\n")
