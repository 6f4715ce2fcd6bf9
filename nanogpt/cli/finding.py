"""Which run, dataset or model directory the words of a command mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt.cli.peers import PRESETS, find_preset, import_first
from nanogpt.config.loading import read
from nanogpt.config.messages import did_you_mean, look_up
from nanogpt.config.resolving import resolve_run, run_names
from nanogpt.config.schema import Config
from nanogpt.config.variants import Given
from nanogpt.errors import UserError
from nanogpt.project import HERE

CONFIG_NAME = "config.json"
RUNS_SHOWN = 5


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
        names = run_names(config)
        shown = ", ".join(f"`{name}`" for name in names[:RUNS_SHOWN])
        more = " and more" if len(names) > RUNS_SHOWN else ""
        raise UserError(f"name a run, or a dataset by --dataset; there is {shown}{more}")
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
    base = run or dataset
    if dataset and resolve_run(config, base).dataset != dataset:
        return Base(base, (Given("", "dataset", dataset),))
    return Base(base)


def find_model(run_or_model: str, dataset: str) -> tuple[Path, str]:
    """A model directory, and the run that it's of, or an empty string.

    run_or_model: a run, a model directory, or nothing, for what was trained last on the dataset.

    Errors: UserError for what isn't there.
    """
    path = Path(run_or_model)
    is_model = (path / CONFIG_NAME).is_file()
    is_path = is_model or (len(path.parts) > 1 and not find_preset(run_or_model))
    if run_or_model and (is_path or not HERE.config_file.exists()):
        return path, ""
    config = read(HERE.config_file)
    if run_or_model or not dataset:
        if run_or_model and not find_preset(run_or_model):
            _check_is_run(config, run_or_model)
        run = find_base(config, run_or_model, dataset).run
        return HERE.results / run / "model", run
    look_up(config.datasets, dataset, "--dataset", "dataset")
    runs = [run for run in run_names(config) if resolve_run(config, run).dataset == dataset]
    return _newest(runs, dataset)


def check_model(directory: Path, run: str) -> None:
    """UserError if a run has no model yet."""
    if run and not (directory / CONFIG_NAME).is_file():
        raise UserError(f"{directory}: no model yet; train it: `nanogpt train {run}`")


def _newest(runs: Sequence[str], dataset: str) -> tuple[Path, str]:
    """The model that was made last, of some runs."""
    found = {
        run: path.stat().st_mtime
        for run in runs
        if (path := HERE.results / run / "model" / CONFIG_NAME).is_file()
    }
    if not found:
        raise UserError(
            f"--dataset={dataset}: no model of it yet; train one: `nanogpt train "
            f"--dataset={dataset}`"
        )
    run = max(found, key=lambda run: found[run])
    return HERE.results / run / "model", run


def _check_is_run(config: Config, name: str) -> None:
    known = [*run_names(config), *config.sweep_of.values()]
    if name not in known:
        raise UserError(f"{name}: no model here, and no run `{name}`{did_you_mean(name, known)}")
