"""The form of a new run, made from the schema, and the run that it defines.

A run is defined as by `nanogpt train RUN --flag=... --name=...`: the same checks, the same messages
and the same file in resources/config/.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel, Field

from nanogpt.config.adding import add_variant, show_command
from nanogpt.config.corpora import Dataset
from nanogpt.config.flags import Flag, plain_type
from nanogpt.config.initial import GPT2_SIZES
from nanogpt.config.loading import read
from nanogpt.config.messages import did_you_mean, look_up
from nanogpt.config.patterns import NAME, NAME_RULE
from nanogpt.config.resolving import resolve_run, run_names
from nanogpt.config.schema import PROMPT_FILES, Config, RunEntry
from nanogpt.config.variants import GROUPS, NO_VALUE, Given, resolve_with, vary_dataset, vary_run
from nanogpt.errors import UserError, shorten
from nanogpt.files.atomic import NAME_BYTES
from nanogpt.project import Project

# The groups of the form, with their headings.
HEADINGS = {
    "model": "Model",
    "train": "Training",
    "dataset": "Tokenizer and split",
    "sample": "Sampling",
    "eval": "Evaluation",
    "ngram": "N-grams",
}
# The settings that aren't folded away, in this order.
MAIN = (
    *("model.preset", "train.max_iters", "train.batch_size", "train.learning_rate"),
    *("model.n_layer", "model.n_head", "model.n_embd", "model.block_size", "model.dropout"),
    *("train.eval_interval", "train.device", "dataset.tokenizer", "sample.start"),
)
# The page doesn't accept files of this machine, so these descriptions leave them out.
WITHOUT_FILES = {
    "sample.start": "prompt; empty: the start of a text",
    "train.init_from": "initial weights: the name of a run, or gpt2, gpt2-medium, gpt2-large or "
    "gpt2-xl; none: random weights (docs/FINETUNING.md)",
}
# Where a text comes from is chosen elsewhere in the form.
LEFT_OUT = ("dataset.corpus",)
# Stands for a text that isn't uploaded yet; no dataset can have this name.
NEW_TEXT = "-"

Name = Annotated[str, Field(max_length=255)]
Value = Annotated[str, Field(max_length=10_000)]


class NewRun(BaseModel):
    """A run to define and train, or one that exists."""

    run: Name = Field("", description="run whose settings it has; empty: those of the dataset")
    dataset: Name = Field("", description="dataset or text; empty: that of the run")
    name: Name = Field("", description="name of the new run; empty: made from the settings")
    settings: Annotated[dict[str, Value], Field(max_length=200)] = Field(
        {}, description="settings by name, such as `train.max_iters`, with values as in flags"
    )


@dataclass(frozen=True)
class FormField:
    """A field of the form. choices: if it's to be chosen. value: the default."""

    name: str
    description: str
    value: str
    choices: tuple[str, ...]
    is_number: bool


def fields() -> dict[str, Flag]:
    """Return the settings of the form by name, such as `train.max_iters`."""
    flags = (
        Flag(group, setting, is_flat=False)
        for group in HEADINGS
        for setting in GROUPS[group].model_fields
    )
    return {flag.name: flag for flag in flags if flag.name not in LEFT_OUT}


def make_form(config: Config) -> tuple[list[FormField], dict[str, list[FormField]]]:
    """Return the main fields, and the other ones by heading."""
    values = values_of(config)
    form = {name: _field(name, flag, config, values) for name, flag in fields().items()}
    others: dict[str, list[FormField]] = {heading: [] for heading in HEADINGS.values()}
    for name, flag in fields().items():
        if name not in MAIN:
            others[HEADINGS[flag.group]].append(form[name])
    return [form[name] for name in MAIN], others


def values_of(config: Config, run: str = "", preset: str = "") -> dict[str, str]:
    """Return the values that fields stand for while they are empty, by name.

    run: the run or the dataset that is chosen; empty: a new text. preset: another model preset.

    Errors: UserError for an unknown name.
    """
    if not run:
        run, sweeps = NEW_TEXT, config.sweep_of
        config = config.model_copy(update={"datasets": {**config.datasets, run: Dataset()}})
        config._sweep_of = sweeps
    given = [Given("model", "preset", preset)] if preset else []
    resolved = resolve_with(config, run, given)
    groups: dict[str, object] = {name: getattr(resolved, name, None) for name in HEADINGS}
    groups["dataset"] = config.datasets[resolved.dataset]
    entry = config.runs.get(run, RunEntry())
    found = {"model.preset": preset or entry.model.preset or config.defaults.model.preset or ""}
    for name, flag in fields().items():
        if hasattr(groups[flag.group], flag.setting):
            found[name] = show(getattr(groups[flag.group], flag.setting))
    return found


def define_run(project: Project, form: NewRun) -> tuple[str, list[Path]]:
    """Define the run of a filled-in form, if it doesn't exist yet.

    Returns its name and the fragments that were written: the run's before the dataset's.

    Errors: UserError with the message that the command line or config.yaml would give.
    """
    if form.name and not NAME.fullmatch(form.name):
        raise UserError(f"name: invalid name `{form.name}`; {NAME_RULE}")
    if len(f"{form.name}.yaml") > NAME_BYTES:
        raise UserError(f"name: `{shorten(form.name)}` is too long; use a shorter one")
    if not (form.run or form.dataset):
        raise UserError("choose a text, a dataset or a run")
    config = read(project.config_file)
    given = _read_settings(form.settings, config)
    of_dataset = [one for one in given if one.group == "dataset"]
    of_run = [one for one in given if one.group != "dataset"]
    dataset, fragment_of_dataset = form.dataset, None
    if of_dataset:
        dataset = dataset or resolve_run(config, form.run).dataset
        made_by = show_command("prepare", dataset, of_dataset)
        varied, fragment_of_dataset = add_variant(
            lambda config: vary_dataset(config, dataset, of_dataset), made_by, project
        )
        dataset = varied.name
    base = form.run or dataset
    if form.run and dataset:
        of_run.insert(0, Given("", "dataset", dataset))
    made_by = show_command("train", base, of_run, form.name)
    try:
        variant, fragment = add_variant(
            lambda config: vary_run(config, base, of_run, form.name), made_by, project
        )
    except UserError:
        if fragment_of_dataset:
            fragment_of_dataset.unlink()
        raise
    return variant.name, [path for path in (fragment, fragment_of_dataset) if path]


def show(value: object) -> str:
    """Return a value as a user would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def _field(name: str, flag: Flag, config: Config, values: Mapping[str, str]) -> FormField:
    kind = plain_type(flag.details.annotation)
    choices: tuple[str, ...] = ()
    if name == "model.preset":
        choices = tuple(config.models)
    elif kind is bool:
        choices = ("yes", "no")
    elif get_origin(kind) is Literal:
        choices = tuple(map(str, get_args(kind)))
    built_in = show(flag.details.get_default(call_default_factory=True))
    value = values.get(name, built_in)
    description = WITHOUT_FILES.get(name, flag.details.description or "")
    return FormField(name, description, value, choices, kind in (int, float))


def _read_settings(settings: Mapping[str, str], config: Config) -> list[Given]:
    """Return the settings of a filled-in form, whose values are read as those of flags."""
    known, given = fields(), []
    for name, value in settings.items():
        if name not in known:
            raise UserError(f"{name}: unknown setting{did_you_mean(name, known)}")
        given.append(Given(known[name].group, known[name].setting, value))
    for one in given:
        _refuse_files(one, config)
    return given


def _refuse_files(given: Given, config: Config) -> None:
    """Refuse to read files of this machine, whose content a sample would show."""
    instead = ""
    if given.name == "sample.start" and given.value.startswith(PROMPT_FILES):
        instead = "write the prompt itself"
    elif given.name == "train.init_from" and given.value not in NO_VALUE:
        if NAME.fullmatch(given.value):
            look_up([*run_names(config), *GPT2_SIZES], given.value, given.name, "run")
        else:
            instead = "name a run"
    if instead:
        raise UserError(
            f"{given.name}: can't be a file when it's set on the page; {instead}, or use the "
            "command line"
        )
