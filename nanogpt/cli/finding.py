"""Which run, dataset or model directory the words of a command mean."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt.cli.peers import PRESETS, find_preset, import_first
from nanogpt.config import trained
from nanogpt.config.loading import read
from nanogpt.config.messages import did_you_mean, list_some, look_up
from nanogpt.config.resolving import resolve_run, run_names
from nanogpt.config.schema import Config
from nanogpt.config.trained import CONFIG_NAME, model_of_run
from nanogpt.config.variants import Given
from nanogpt.errors import UserError
from nanogpt.project import HERE

TOKENIZER = "tokenizer.json"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Base:
    """What flags are laid over: a run, and its dataset if that's another one."""

    run: str
    given: tuple[Given, ...] = ()


def find_base(config: Config, run: str, dataset: str) -> Base:
    """The run that a command names, or its preset of nanoGPT's, or a dataset's own run.

    Errors: UserError for an unknown name, and for none.
    """
    if not run and not dataset:
        known = list_some(run_names(config)) or "none yet"
        raise UserError(f"name a run, or a dataset by --dataset; there is {known}")
    if dataset:
        look_up(config.datasets, dataset, "--dataset", "dataset")
    preset = "" if run in run_names(config) else find_preset(run)
    if preset:
        run = PRESETS[preset].run
        if not run:
            raise import_first(preset)
        if run not in run_names(config):
            raise UserError(
                f"{preset}: the run `{run}` of the shipped config.yaml, which this one lacks; copy "
                "it from there"
            )
    if run not in (*run_names(config), *config.sweep_of.values()):
        refuse_file(run)
    base = run or dataset
    if dataset and resolve_run(config, base).dataset != dataset:
        return Base(base, (Given("", "dataset", dataset),))
    return Base(base)


def refuse_file(word: str) -> None:
    """UserError, with what to do, for a text's path in the place of a run or a dataset."""
    path = Path(word).expanduser()
    if word and path.is_file():
        name = name_of_text(path) or "NAME"
        raise UserError(
            f"{word}: a file, and no run or dataset; make a dataset of it: `nanogpt prepare "
            f"textfile {shlex.quote(word)} --output={name}`"
        )
    looks_like_one = path.suffix == ".txt" or len(path.parts) > 1
    if looks_like_one and not path.exists():
        raise UserError(
            f"{word}: no such file; a dataset of a text is made by `nanogpt prepare textfile PATH "
            "--output=NAME`"
        )


def name_of_text(path: Path) -> str:
    """A dataset's name made of a text's; empty if nothing of it can be in a name."""
    return NOT_IN_NAMES.sub("_", path.stem).lstrip("._-")


def find_model(run_or_model: str, dataset: str) -> tuple[Path, str]:
    """A model directory, and the run that it's of, or an empty string.

    run_or_model: a run, a model directory, or nothing, for what was trained last on the dataset.

    Errors: UserError for what isn't there.
    """
    if run_or_model and not find_preset(run_or_model):
        return trained.find_model(run_or_model)
    config = read(HERE.config_file)
    if run_or_model or not dataset:
        run = find_base(config, run_or_model, dataset).run
        return model_of_run(run), run
    look_up(config.datasets, dataset, "--dataset", "dataset")
    runs = [run for run in run_names(config) if resolve_run(config, run).dataset == dataset]
    return _newest(runs, dataset)


def find_tokenizer(word: str) -> Path:
    """The tokenizer of a dataset or run, or of a directory, or the file itself.

    A dataset or run comes first; `./name` is the directory in any case.

    Errors: UserError for an unknown name, and for a dataset that isn't made.
    """
    path = Path(word)
    config = read(HERE.config_file) if HERE.config_file.exists() and path.name == word else None
    names = (*config.datasets, *run_names(config)) if config else ()
    if word in names:
        assert config
        dataset = word if word in config.datasets else resolve_run(config, word).dataset
        made = HERE.datasets / dataset / TOKENIZER
        for file in (made, model_of_run(word) / TOKENIZER):
            if file.is_file():
                return file
        raise UserError(f"{made}: not made yet; make it: `nanogpt prepare {dataset}`")
    if config and not path.exists():
        raise UserError(f"{word}: no dataset or run of this name{did_you_mean(word, names)}")
    return path / TOKENIZER if path.is_dir() else path


def check_dataset(config: Config, run: str, dataset: str) -> None:
    """UserError if a run is named together with a dataset that isn't its own."""
    look_up(config.datasets, dataset, "--dataset", "dataset")
    own = resolve_run(config, run).dataset
    if own != dataset:
        raise UserError(
            f"{run}: trained on `{own}`, not on `{dataset}`; leave out the run, or --dataset"
        )


def _newest(runs: Sequence[str], dataset: str) -> tuple[Path, str]:
    """The model that was made last, of some runs."""
    found = {
        run: path.stat().st_mtime
        for run in runs
        if (path := model_of_run(run) / CONFIG_NAME).is_file()
    }
    if not found:
        raise UserError(
            f"--dataset={dataset}: no model of it yet; train one: `nanogpt train "
            f"--dataset={dataset}`"
        )
    run = max(found, key=lambda run: found[run])
    return model_of_run(run), run
