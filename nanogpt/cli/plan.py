"""The command `plan`: what a run takes, before it's made."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, optional, print_json
from nanogpt.cli.finding import find_base
from nanogpt.cli.flags import FlagValues, given_by, with_flags
from nanogpt.config.loading import read
from nanogpt.config.variants import add_run, vary_run
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project


@app.command
@examples(
    "plan",
    "nanogpt plan shakespeare_char",
    "nanogpt plan shakespeare_char --n_layer=12 --batch_size=8",
    "nanogpt plan openwebtext --no-measure",
)
@with_flags("plan")
def plan(
    run: Annotated[Positional[str], optional("[RUN]")] = "",
    *,
    flags: FlagValues,
    dataset: Annotated[str, optional("DATASET")] = "",
    config_file: Path = HERE.config_file,
    measure: bool = True,
    json: bool = False,
) -> None:
    """Say what a run takes: parameters, memory, tokens, FLOPs, disk and time.

    The run needn't be made, and nothing is downloaded. Flags plan the run that `nanogpt train` with
    them would make, and nothing is written. Exit code 1 if it can't fit here. The defaults shown
    below are config.yaml's, or built in where it has none; the run's own settings come first.

    Args:
        run: a run or a dataset of config.yaml, a text in resources/texts/, or one of nanoGPT's
            presets, such as train_gpt2.
        dataset: a dataset to train on; without a run, its own run.
        config_file: the config file.
        measure: make a few steps to see how long they take; --no-measure: don't.
        json: print JSON instead.
    """
    from nanogpt.planning.plan import make_plan
    from nanogpt.planning.plan_page import plan_as_json, plan_page

    config = read(config_file)
    base = find_base(config, run, dataset)
    name, given = base.run, [*base.given, *given_by("plan", flags)]
    if given:
        variant = vary_run(config, name, given)
        name, config = variant.name, add_run(config, variant)
    made = make_plan(config, name, Project.of(config_file), measure=measure)
    if json:
        print_json(plan_as_json(made))
    else:
        print(*plan_page(made), sep="\n")
    if made.problem:
        raise UserError(made.problem)
