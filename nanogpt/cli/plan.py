"""The command `plan`: what a run takes, before it's made."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, named, print_json
from nanogpt.cli.finding import find_base
from nanogpt.config.loading import read
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project


@app.command
@examples("plan", "nanogpt plan shakespeare_char", "nanogpt plan openwebtext --no-measure")
def plan(
    run: Annotated[Positional[str], named("RUN")],
    config_file: Path = HERE.config_file,
    measure: bool = True,
    json: bool = False,
) -> None:
    """Say what a run takes: parameters, memory, tokens, FLOPs, disk and time.

    The run needn't be made, and nothing is downloaded. Exit code 1 if it can't fit here.

    Args:
        run: a run or a dataset of config.yaml, a text in resources/texts/, or one of nanoGPT's
            presets, such as train_gpt2.
        config_file: the config file.
        measure: make a few steps to see how long they take; --no-measure: don't.
        json: print JSON instead.
    """
    from nanogpt.planning.plan import make_plan
    from nanogpt.planning.plan_page import plan_as_json, plan_page

    config = read(config_file)
    made = make_plan(
        config, find_base(config, run, "").run, Project.of(config_file), measure=measure
    )
    if json:
        print_json(plan_as_json(made))
    else:
        print(*plan_page(made), sep="\n")
    if made.problem:
        raise UserError(made.problem)
