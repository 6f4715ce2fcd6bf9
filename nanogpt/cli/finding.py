"""Find the run, dataset or model directory that a command's arguments refer to."""

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
    """The run that flags are applied to. given: its dataset, if it's to be another one."""

    run: str
    given: tuple[Given, ...] = ()


def find_base(config: Config, run: str, dataset: str) -> Base:
    """Find the run that a command refers to: a run, a nanoGPT preset, or a dataset's own run.

    Errors: UserError for an unknown name, and if no name is given.
    """
    if not run and not dataset:
        known = list_some(run_names(config)) or "none are defined yet"
        raise UserError(f"no run given; name one, or use --dataset=NAME; runs: {known}")
    if dataset:
        look_up(config.datasets, dataset, "--dataset", "dataset")
    preset = "" if run in run_names(config) else find_preset(run)
    if preset:
        run = PRESETS[preset].run
        if not run:
            raise import_first(preset)
        if run not in run_names(config):
            raise UserError(
                f"{preset}: this preset is the run `{run}` of the shipped config.yaml, which your "
                "config.yaml doesn't have; copy it from there"
            )
    if run not in (*run_names(config), *config.sweep_of.values()):
        refuse_file(run)
    base = run or dataset
    if dataset and resolve_run(config, base).dataset != dataset:
        return Base(base, (Given("", "dataset", dataset),))
    return Base(base)


def refuse_file(word: str) -> None:
    """Raise UserError for the path of a text where a run or a dataset is needed."""
    path = Path(word).expanduser()
    if word and path.is_file():
        name = name_of_text(path) or "NAME"
        raise UserError(
            f"{word}: a file, not a run or dataset; make a dataset from it with `nanogpt prepare "
            f"textfile {shlex.quote(word)} --output={name}`"
        )
    looks_like_one = path.suffix == ".txt" or len(path.parts) > 1
    if looks_like_one and not path.exists():
        raise UserError(
            f"{word}: no such file; to make a dataset from a text, run `nanogpt prepare textfile "
            "PATH --output=NAME`"
        )


def name_of_text(path: Path) -> str:
    """Make a dataset's name from a text's file name; empty if no character is valid in a name."""
    return NOT_IN_NAMES.sub("_", path.stem).lstrip("._-")


def find_model(run_or_model: str, dataset: str) -> tuple[Path, str]:
    """Return a model directory and the name of its run, or an empty string without a run.

    run_or_model: a run or a model directory; if empty, the dataset's most recently trained run.

    Errors: UserError if there isn't such a run or model.
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
    """Return the path of a tokenizer.json. word: a dataset, a run, a directory or the file.

    If a name and a directory both exist, it's the dataset or run; `./name` is the directory.

    Errors: UserError for an unknown name, and for a dataset that isn't prepared yet.
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
        raise UserError(f"{made}: doesn't exist yet; make it with `nanogpt prepare {dataset}`")
    if config and not path.exists():
        raise UserError(f"no dataset or run `{word}`{did_you_mean(word, names)}")
    file = path / TOKENIZER if path.is_dir() else path
    if not file.exists():
        raise UserError(
            f"{file}: no such file; name a prepared dataset, a run, or a tokenizer.json"
        )
    return file


def check_dataset(config: Config, run: str, dataset: str) -> None:
    """Raise UserError if `dataset` isn't the run's dataset."""
    look_up(config.datasets, dataset, "--dataset", "dataset")
    own = resolve_run(config, run).dataset
    if own != dataset:
        raise UserError(
            f"{run}: trained on `{own}`, not on `{dataset}`; leave out `{run}` or --dataset"
        )


def _newest(runs: Sequence[str], dataset: str) -> tuple[Path, str]:
    """Return the most recently trained model of some runs."""
    found = {
        run: path.stat().st_mtime
        for run in runs
        if (path := model_of_run(run) / CONFIG_NAME).is_file()
    }
    if not found:
        raise UserError(
            f"--dataset={dataset}: no model is trained on it yet; train one with `nanogpt train "
            f"--dataset={dataset}`"
        )
    run = max(found, key=lambda run: found[run])
    return model_of_run(run), run
