"""What a run resolves to: defaults, presets, its own entry and the command line, in this order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.initial import check_begins, find_source, model_of_source
from nanogpt.config.messages import RUNS_SHOWN, list_some, look_up
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import (
    Config,
    EvalSettings,
    ModelSettings,
    Run,
    RunDefaults,
    RunEntry,
    SampleSettings,
    TrainSettings,
    check_device,
)
from nanogpt.config.values import Settings
from nanogpt.errors import UserError

# Settings that are derived from another one unless they are given: (group, setting) -> the other.
DERIVED = {
    ("train", "lr_decay_iters"): ("train", "max_iters"),
    ("bench", "batch_size"): ("train", "batch_size"),
}


# Settings of a run from one source: (source, {group: {setting: value}}).
Layer = tuple[str, dict[str, dict[str, JsonValue]]]


def run_names(config: Config) -> list[str]:
    """All names that can stand in results/<run>/: runs, and datasets that no run is named after."""
    entries = {*config.runs, *config.sweep_of.values()}
    return [*config.runs, *(name for name in config.datasets if name not in entries)]


def expand(config: Config, names: Iterable[str]) -> list[str]:
    """The names with those of sweeps replaced by their runs."""
    runs: dict[str, list[str]] = {}
    for run, sweep in config.sweep_of.items():
        runs.setdefault(sweep, []).append(run)
    return [run for name in names for run in runs.get(name, [name])]


# What a benchmark takes from the settings of other groups; the rest changes no speed.
BENCHED = {
    "train": ("batch_size", "device", "dtype", "compile", "deterministic", "reproducible"),
    "sample": ("device", "dtype"),
}


def bench_runs(config: Config, runs: Sequence[str]) -> dict[str, str]:
    """For each run, the first of them whose benchmark would be the same: one is enough for all."""
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
    """The name of a dataset's corpus."""
    return config.datasets[dataset].corpus or dataset


def find_dataset(config: Config, name: str) -> tuple[Corpus, Dataset]:
    """A dataset and its corpus."""
    return config.corpora[corpus_of(config, name)], config.datasets[name]


def run_layers(config: Config, name: str) -> list[Layer]:
    """The settings of a run by source, weakest first: (source, {group: {setting: value}}).

    A run that begins with a model has that model's settings in place of those of `defaults`; they
    are the first layer.
    """
    if name not in config.runs:
        runs = expand(config, [name])
        if runs != [name]:
            raise UserError(f"runs: `{name}` is a sweep; its runs are {list_some(runs)}")
        if name in config.corpora and name not in config.datasets:
            raise UserError(
                f"runs: no run `{name}`, but a corpus: say how it becomes tokens, by an entry "
                f"`{name}: {{}}` in `datasets:`"
            )
        look_up(run_names(config), name, "runs", "run")
    layers: list[Layer] = []
    entries: list[tuple[str, RunDefaults]] = [("defaults", config.defaults)]
    if name in config.runs:
        entries.append((f"runs.{config.sweep_of.get(name, name)}", config.runs[name]))
    entries.append(("command line", config))
    initial = find_source(config, name)
    if initial:
        model = resolve_run(config, initial.run).model if initial.run else None
        model = model or model_of_source(initial, name, config.root)
        layers.append((f"as {initial.name}", {"model": model.model_dump()}))
    for source, entry in entries:
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
    """Lay a run's settings over one another and check what they come to.

    Errors: UserError for an unknown run or preset, or settings that do not go together.
    """
    merged: dict[str, Any] = {group: {} for group in RunDefaults.GROUPS}
    layers = run_layers(config, name)
    for _, groups in layers:
        for group, settings in groups.items():
            merged[group].update(settings)
    _shorten_warm_up(merged["train"], layers)
    entry = config.runs.get(name, RunEntry())
    uses_ngrams = merged["ngram"].pop("use", False)
    if not uses_ngrams:
        del merged["ngram"]
    merged |= {"name": name, "dataset": entry.dataset or name, "ensemble": tuple(entry.ensemble)}
    run = _derive(Run.model_validate(merged))
    model, train = run.model, run.train
    if "learning_rate" in merged["train"] and not _uses_learning_rate(run):
        raise UserError(
            f"runs.{name}.train.learning_rate: of no use with muon and this model; set "
            "`matrix_lr`, `embedding_lr` and `unembedding_lr`, or `optimizer: adamw`"
        )
    try:
        check_model(model)
    except UserError as error:
        raise UserError(f"runs.{name}.model: {error}; change one of them") from None
    check_draft(run)
    initial = find_source(config, name)
    if initial:
        check_begins(config, run, initial, ModelSettings.model_validate(layers[0][1]["model"]))
    if train.decay_lr and train.min_lr > train.peak_rate:
        peak = "matrix_lr" if train.optimizer == "muon" else "learning_rate"
        raise UserError(
            f"runs.{name}.train: min_lr {train.min_lr:g} is above {peak} {train.peak_rate:g}; "
            "lower it"
        )
    if train.decay_lr and not train.min_lr and (train.lr_decay_iters or 0) < train.max_iters:
        raise UserError(
            f"runs.{name}.train: lr_decay_iters {train.lr_decay_iters} ends all learning before "
            f"max_iters {train.max_iters}, as min_lr is 0; raise it, or min_lr"
        )
    _check_devices(run)
    try:
        check_window(run.model, run.sample)
    except UserError as error:
        raise UserError(f"runs.{name}.{error}") from None
    late = [step for step in train.milestones if step > train.max_iters]
    if late:
        raise UserError(
            f"runs.{name}.train: milestones: step {late[0]} comes after max_iters "
            f"{train.max_iters}; leave it out, or raise max_iters"
        )
    if train.decay_lr and train.warmup_iters >= (train.lr_decay_iters or 0):
        raise UserError(
            f"runs.{name}.train: warmup_iters {train.warmup_iters} leaves no step for the decay, "
            f"which ends at {train.lr_decay_iters}; lower it"
        )
    return run


def _shorten_warm_up(train: dict[str, Any], layers: Sequence[Layer]) -> None:
    """A tenth of `max_iters` for the warm-up, if that was given for more steps than there are.

    So whoever tries a run with few steps needs not think of it. Both in one place are a mistake.
    """
    source = {
        setting: number
        for number, (_, groups) in enumerate(layers)
        for setting in groups.get("train", {})
    }
    steps = train.get("max_iters", TrainSettings().max_iters)
    warm_up = train.get("warmup_iters", TrainSettings().warmup_iters)
    follows = source.get("max_iters", -1) > source.get("warmup_iters", -1)
    if follows and "lr_decay_iters" not in train and warm_up >= steps:
        train["warmup_iters"] = steps // 10


def _check_devices(run: Run) -> None:
    """UserError if a group's device doesn't go with its dtype or with `reproducible: anywhere`."""
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
            f"runs.{run.name}.train: reproducible: anywhere doesn't go with compile; "
            "set compile: false"
        )


def _uses_learning_rate(run: Run) -> bool:
    """Whether a parameter learns at `train.learning_rate`: with muon, biases, norms, positions."""
    model = run.model
    others = model.bias or model.norm == "layernorm" or model.position == "learned"
    return run.train.optimizer == "adamw" or others


def _derive(run: Run) -> Run:
    """The run with the settings of DERIVED that weren't given."""
    for (group, setting), (other_group, other) in DERIVED.items():
        if getattr(getattr(run, group), setting) is None:
            value = getattr(getattr(run, other_group), other)
            derived = getattr(run, group).model_copy(update={setting: value})
            run = run.model_copy(update={group: derived})
    return run


def run_parameters(
    run: Run, groups: Iterable[str], only: Mapping[str, set[str]] | None = None
) -> dict[str, JsonValue]:
    """Groups of a run's settings, or its name or dataset, as the parameters of a stage.

    only: of some groups, the settings that matter to the stage.
    """
    return {
        group: as_parameters(value, (only or {}).get(group))
        if isinstance(value := getattr(run, group), Settings)
        else value
        for group in groups
    }


def check_ngrams(run: Run) -> None:
    """UserError if a run mixes no n-grams with its GPT."""
    if run.ngram is None:
        raise UserError(f"runs.{run.name}: mixes no n-grams with its GPT; say `ngram: on` in it")


def check_trains(run: Run) -> None:
    """UserError if a run is an ensemble, which trains nothing."""
    if run.ensemble:
        raise UserError(
            f"runs.{run.name}: an ensemble trains nothing, so it has no curve and no speed; name "
            f"its runs ({', '.join(run.ensemble[:RUNS_SHOWN])}) instead"
        )


def check_exports(run: Run) -> None:
    """UserError if a run is an ensemble, which no other program can run."""
    if run.ensemble:
        raise UserError(
            f"runs.{run.name}: an ensemble, which no other program can run; export one of its runs "
            f"({', '.join(run.ensemble[:RUNS_SHOWN])}) instead"
        )


def check_draft(run: Run) -> None:
    """UserError for a draft by n-grams that a run doesn't have."""
    if run.sample.draft and run.ngram is None:
        raise UserError(
            f"runs.{run.name}.sample.draft: this run has no n-grams; say `ngram: on` in it, or "
            "`ngram: {weight: 0}` for its GPT's own text, or leave draft at 0"
        )


def check_window(model: ModelSettings, sample: SampleSettings) -> None:
    """UserError for a window that slides, of a model with learned positions."""
    if sample.window == "slide" and model.position == "learned":
        raise UserError(
            "sample.window: slide is for rotary positions, and this model's are learned; use half "
            "or crop"
        )


def check_model(model: ModelSettings) -> None:
    """UserError if the settings of a model do not go together."""
    if model.n_embd % model.n_head:
        raise UserError(f"n_embd {model.n_embd} is not divisible by n_head {model.n_head}")
    if model.position == "rotary" and model.n_embd // model.n_head % 2:
        raise UserError(
            f"rotary positions turn pairs, but n_embd {model.n_embd} / n_head {model.n_head} is odd"
        )
