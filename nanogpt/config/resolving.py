"""Resolve a run's settings from defaults, presets, its entry and the command line."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.initial import NO_ENTRY, Source, check_begins, find_source, model_of_source
from nanogpt.config.messages import list_some, look_up
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import (
    Config,
    EvalSettings,
    ModelSettings,
    Run,
    RunDefaults,
    SampleSettings,
    TrainSettings,
    check_device,
)
from nanogpt.config.values import Settings
from nanogpt.errors import UserError

# Settings that default to the value of another one: (group, setting) -> the other.
DERIVED = {
    ("train", "lr_decay_iters"): ("train", "max_iters"),
    ("bench", "batch_size"): ("train", "batch_size"),
}


DEFAULTS = TrainSettings()

# Settings of a run from one source: (source, {group: {setting: value}}).
Layer = tuple[str, dict[str, dict[str, JsonValue]]]


def run_names(config: Config) -> list[str]:
    """Return the names of all runs: those of `runs`, and datasets without a run of their name."""
    entries = {*config.runs, *config.sweep_of.values()}
    return [*config.runs, *(name for name in config.datasets if name not in entries)]


def expand(config: Config, names: Iterable[str]) -> list[str]:
    """Replace the names of sweeps by their runs."""
    runs: dict[str, list[str]] = {}
    for run, sweep in config.sweep_of.items():
        runs.setdefault(sweep, []).append(run)
    return [run for name in names for run in runs.get(name, [name])]


# Settings of other groups that a benchmark uses; the others don't affect speed.
BENCHED = {
    "train": ("batch_size", "device", "dtype", "compile", "deterministic", "reproducible"),
    "sample": ("device", "dtype"),
}


def bench_runs(config: Config, runs: Sequence[str]) -> dict[str, str]:
    """Map each run to the first run with the same benchmark, so that each is measured once."""
    first: dict[Any, str] = {}
    same = {}
    for name in runs:
        run = resolve_run(config, name)
        taken = {
            (group, setting): getattr(getattr(run, group), setting)
            for group, settings in BENCHED.items()
            for setting in settings
        }
        taken["train", "batch_size"] = run.bench.batch_size
        rest = run.bench.model_copy(update={"batch_size": None})
        measured = (run.dataset, run.model, *taken.values(), rest)
        same[name] = first.setdefault(measured, name)
    return same


def corpus_of(config: Config, dataset: str) -> str:
    """Return the name of a dataset's corpus."""
    return config.datasets[dataset].corpus or dataset


def find_dataset(config: Config, name: str) -> tuple[Corpus, Dataset]:
    """Return a dataset and its corpus."""
    return config.corpora[corpus_of(config, name)], config.datasets[name]


def dataset_of(config: Config, run: str) -> str:
    """Return the name of a run's dataset."""
    return config.runs.get(run, NO_ENTRY).dataset or run


def entries_of(config: Config, run: str) -> list[tuple[str, RunDefaults]]:
    """Return what sets a run's settings, by name, lowest priority first. This reads no files."""
    entries: list[tuple[str, RunDefaults]] = [("defaults", config.defaults)]
    if run in config.runs:
        entries.append((f"runs.{config.sweep_of.get(run, run)}", config.runs[run]))
    return [*entries, ("command line", config)]


def run_layers(config: Config, name: str) -> list[Layer]:
    """Return a run's settings by source, lowest priority first.

    Each layer is (source, {group: {setting: value}}). With an initial model, the first layer has
    its settings, and the model settings of `defaults` are left out.
    """
    if name not in config.runs:
        runs = expand(config, [name])
        if runs != [name]:
            raise UserError(f"runs: `{name}` is a sweep; use one of its runs: {list_some(runs)}")
        if name in config.corpora and name not in config.datasets:
            raise UserError(
                f"runs: no run `{name}`, only a corpus; add an entry `{name}: {{}}` to `datasets:` "
                "to turn it into tokens"
            )
        look_up(run_names(config), name, "runs", "run")
    layers: list[Layer] = []
    initial = find_source(config, name)
    if initial:
        model = resolve_run(config, initial.run).model if initial.run else None
        model = model or model_of_source(initial, name, config.root)
        layers.append((f"from {initial.name}", {"model": model.model_dump()}))
    for source, entry in entries_of(config, name):
        groups = {
            group: getattr(entry, group).model_dump(exclude_unset=True)
            for group in RunDefaults.GROUPS
        }
        if initial and source == "defaults":
            groups["model"] = {}
        preset = groups["model"].pop("preset", None)
        if preset is not None:
            settings = look_up(config.models, preset, f"{source}.model", "model")
            layers.append((f"models.{preset}", {"model": settings.model_dump(exclude_unset=True)}))
        layers.append((source, groups))
    return layers


def resolve_run(config: Config, name: str) -> Run:
    """Merge a run's layers of settings and check the result.

    Errors: UserError for an unknown run or preset, and settings that contradict each other.
    """
    if name in config._resolved:
        return config._resolved[name]
    initial = find_source(config, name)
    run = _resolve(config, name, initial)
    if initial is None:  # otherwise it depends on files, which can change
        config._resolved[name] = run
    return run


def _resolve(config: Config, name: str, initial: Source | None) -> Run:
    merged: dict[str, Any] = {group: {} for group in RunDefaults.GROUPS}
    layers = run_layers(config, name)
    for _, groups in layers:
        for group, settings in groups.items():
            merged[group].update(settings)
    _shorten_warm_up(merged["train"], layers)
    entry = config.runs.get(name, NO_ENTRY)
    uses_ngrams = merged["ngram"].pop("use", False)
    if not uses_ngrams:
        del merged["ngram"]
    dataset, ensemble = dataset_of(config, name), tuple(entry.ensemble)
    merged |= {"name": name, "dataset": dataset, "ensemble": ensemble}
    run = _derive(Run.model_validate(merged))
    model, train = run.model, run.train
    if "learning_rate" in merged["train"] and not _uses_learning_rate(run):
        raise UserError(
            f"runs.{name}.train.learning_rate: has no effect with muon and this model; set "
            "`matrix_lr`, `embedding_lr` and `unembedding_lr`, or `optimizer: adamw`"
        )
    try:
        check_model(model)
    except UserError as error:
        raise UserError(f"runs.{name}.model: {error}; change one of them") from None
    check_draft(run)
    if initial:
        check_begins(config, run, initial, ModelSettings.model_validate(layers[0][1]["model"]))
    if train.decay_lr and train.min_lr > train.peak_rate:
        peak = "matrix_lr" if train.optimizer == "muon" else "learning_rate"
        raise UserError(
            f"runs.{name}.train: min_lr {train.min_lr:g} is above {peak} {train.peak_rate:g}; "
            "lower min_lr"
        )
    if train.decay_lr and not train.min_lr and (train.lr_decay_iters or 0) < train.max_iters:
        raise UserError(
            f"runs.{name}.train: the learning rate reaches 0 at lr_decay_iters "
            f"{train.lr_decay_iters}, before max_iters {train.max_iters}; raise lr_decay_iters or "
            "min_lr"
        )
    _check_devices(run)
    try:
        check_window(run.model, run.sample)
    except UserError as error:
        raise UserError(f"runs.{name}.{error}") from None
    late = [step for step in train.milestones if step > train.max_iters]
    if late:
        raise UserError(
            f"runs.{name}.train.milestones: step {late[0]} is after max_iters {train.max_iters}; "
            "remove it, or raise max_iters"
        )
    if train.decay_lr and train.warmup_iters >= (train.lr_decay_iters or 0):
        raise UserError(
            f"runs.{name}.train: warmup_iters {train.warmup_iters} leaves no steps for the decay, "
            f"which ends at step {train.lr_decay_iters}; lower warmup_iters"
        )
    return run


def _shorten_warm_up(train: dict[str, Any], layers: Sequence[Layer]) -> None:
    """Shorten the warm-up to a tenth of `max_iters` if it's as long as the whole training.

    That way, trying a run with few steps just works. It only applies if `max_iters` comes from a
    stronger source than `warmup_iters`; in the same place, the two are a mistake.
    """
    source = {
        setting: number
        for number, (_, groups) in enumerate(layers)
        for setting in groups.get("train", {})
    }
    steps = train.get("max_iters", DEFAULTS.max_iters)
    warm_up = train.get("warmup_iters", DEFAULTS.warmup_iters)
    follows = source.get("max_iters", -1) > source.get("warmup_iters", -1)
    if follows and "lr_decay_iters" not in train and warm_up >= steps:
        train["warmup_iters"] = steps // 10


def _check_devices(run: Run) -> None:
    """Raise UserError if a group's device contradicts its dtype or `reproducible: anywhere`."""
    groups: dict[str, TrainSettings | EvalSettings | SampleSettings] = {
        "train": run.train,
        "eval": run.eval,
        "sample": run.sample,
    }
    for name, group in groups.items():
        try:
            check_device(group.device, group.dtype, group.reproducible)
        except UserError as error:
            raise UserError(f"runs.{run.name}.{name}: {error}") from None
    if run.train.reproducible == "anywhere" and run.train.compile:
        raise UserError(
            f"runs.{run.name}.train: `reproducible: anywhere` doesn't work with compile; set "
            "`compile: false`"
        )


def _uses_learning_rate(run: Run) -> bool:
    """Whether a parameter uses `train.learning_rate`. With muon: biases, norms, positions."""
    model = run.model
    others = model.bias or model.norm == "layernorm" or model.position == "learned"
    return run.train.optimizer == "adamw" or others


def _derive(run: Run) -> Run:
    """Fill in the settings of DERIVED that weren't given."""
    for (group, setting), (other_group, other) in DERIVED.items():
        if getattr(getattr(run, group), setting) is None:
            value = getattr(getattr(run, other_group), other)
            derived = getattr(run, group).model_copy(update={setting: value})
            run = run.model_copy(update={group: derived})
    return run


def run_parameters(
    run: Run, groups: Iterable[str], only: Mapping[str, set[str]] | None = None
) -> dict[str, JsonValue]:
    """Return groups of a run's settings, or its name or dataset, as the parameters of a stage.

    only: for some groups, the settings that affect the stage.
    """
    return {
        group: as_parameters(value, (only or {}).get(group))
        if isinstance(value := getattr(run, group), Settings)
        else value
        for group in groups
    }


def check_ngrams(run: Run) -> None:
    """Raise UserError if a run doesn't use n-grams."""
    if run.ngram is None:
        raise UserError(f"runs.{run.name}: this run doesn't use n-grams; set `ngram: on` for it")


def check_trains(run: Run) -> None:
    """Raise UserError if a run is an ensemble, which isn't trained."""
    if run.ensemble:
        raise UserError(
            f"runs.{run.name}: an ensemble isn't trained, so it has no loss curve and no speed; "
            f"use one of its runs: {list_some(run.ensemble)}"
        )


def check_exports(run: Run) -> None:
    """Raise UserError if a run is an ensemble, which no other program can run."""
    if run.ensemble:
        raise UserError(
            f"runs.{run.name}: an ensemble, which no other program can run; export one of its "
            f"runs: {list_some(run.ensemble)}"
        )


def check_draft(run: Run) -> None:
    """Raise UserError for `sample.draft` without n-grams."""
    if run.sample.draft and run.ngram is None:
        raise UserError(
            f"runs.{run.name}.sample.draft: this run doesn't use n-grams; set `ngram: on` for it, "
            "`ngram: {weight: 0}` to use them for drafts only, or `draft: 0`"
        )


def check_window(model: ModelSettings, sample: SampleSettings) -> None:
    """Raise UserError for `window: slide` with learned positions."""
    if sample.window == "slide" and model.position == "learned":
        raise UserError(
            "sample.window: `slide` needs rotary positions, but this model's are learned; use "
            "`half` or `crop`"
        )


def check_model(model: ModelSettings) -> None:
    """Raise UserError if a model's settings contradict each other."""
    if model.n_embd % model.n_head:
        raise UserError(f"n_embd {model.n_embd} is not divisible by n_head {model.n_head}")
    if model.position == "rotary" and model.n_embd // model.n_head % 2:
        raise UserError(
            f"rotary positions need heads of even width, but n_embd {model.n_embd} / n_head "
            f"{model.n_head} is odd"
        )
