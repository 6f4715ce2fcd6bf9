"""The command `plan`: estimate what a run needs before training it."""

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
    """Estimate what a run needs: parameters, memory, tokens, FLOPs, disk space and time.

    Nothing is downloaded or written. With flags, this plans the run that `nanogpt train` would make
    with them. The exit code is 1 if the run doesn't fit on this machine. The defaults below are
    config.yaml's, or built in if it has none. The run's own settings override them.

    Args:
        run: a run or a dataset of config.yaml, a text in resources/texts/, or a nanoGPT preset
            such as train_gpt2.
        dataset: the dataset to train on; without a run: plans the dataset's own run.
        config_file: the config file.
        measure: time a few training steps on this machine.
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
