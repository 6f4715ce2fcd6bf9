"""Sweeps: an entry of config.yaml that defines one run per combination of values."""

import itertools
from collections.abc import Iterator
from typing import Any

from pydantic import (
    ValidationError,
)

from nanogpt.config.messages import (
    did_you_mean,
    explain_one,
    look_up,
    quote_value,
    yaml_scalar,
)
from nanogpt.config.patterns import NAME
from nanogpt.config.schema import IMPLIED, SWEEPABLE, Config, RunEntry
from nanogpt.config.values import Settings
from nanogpt.errors import UserError, shorten

# Longest name of a sweep's run, in bytes. File systems allow 255; temporary names need some more.
LONGEST_NAME = 200


def expand_sweeps(config: Config) -> Config:
    """Return the config with each sweep replaced by its runs."""
    runs: dict[str, RunEntry] = {}
    sweep_of: dict[str, str] = {}
    for name, entry in config.runs.items():
        if not entry.sweep:
            runs[name] = entry
            continue
        where = f"runs.{name}.sweep"
        if entry.ensemble:
            raise UserError(f"{where}: an ensemble isn't trained; remove `sweep`")
        for run, swept in _runs_of_sweep(config, name, entry):
            if sweep_of.get(run) == name:
                raise UserError(
                    f"{where}: two of its runs would have the name `{run}`; reorder its settings, "
                    "or rename a value"
                )
            if run in runs or run in config.runs or run in config.datasets:
                raise UserError(
                    f"{where}: would create a run `{run}`, but a run, dataset or text already has "
                    "that name; rename it, or rename the sweep"
                )
            if len(run) > LONGEST_NAME:
                raise UserError(
                    f"{where}: the run name `{shorten(run)}` would have {len(run)} characters, but "
                    f"the limit is {LONGEST_NAME}; shorten the run's name or the swept values"
                )
            runs[run] = swept
            sweep_of[run] = name
    expanded = config.model_copy(update={"runs": runs})
    expanded._sweep_of = sweep_of
    return expanded


def _runs_of_sweep(config: Config, name: str, entry: RunEntry) -> Iterator[tuple[str, RunEntry]]:
    """Yield the name and the entry of each run of a sweep. The first key varies slowest."""
    keys: dict[tuple[str, str], str] = {}
    axes = []
    for key, values in entry.sweep.items():
        where = f"runs.{name}.sweep.{key}"
        if key not in SWEEPABLE:
            raise UserError(f"{where}: unknown setting{_meant_setting(key)}")
        other = keys.setdefault(SWEEPABLE[key], key)
        if other != key:
            raise UserError(f"{where}: same setting as `{other}`; remove one of them")
        axes.append(_swept_values(config, key, values, where))
    for combination in itertools.product(*axes):
        groups: dict[str, dict[str, Any]] = {"": {"dataset": entry.dataset or name, "sweep": {}}}
        for (group, setting), (_, value) in zip(keys, combination, strict=True):
            groups.setdefault(group, {})[setting] = value
        laid_over = groups.pop("")
        for group, settings in groups.items():
            update = {**IMPLIED.get(group, {}), **settings}
            laid_over[group] = getattr(entry, group).model_copy(update=update)
        run = ".".join([name, *(part for part, _ in combination)])
        yield run, entry.model_copy(update=laid_over)


def _swept_values(config: Config, key: str, values: list[Any], where: str) -> list[tuple[str, Any]]:
    """Check the values of a key. Returns pairs of (part of the run's name, value)."""
    group, setting = SWEEPABLE[key]
    model: type[Settings] = type(getattr(config.defaults, group)) if group else RunEntry
    names = {"preset": (config.models, "model"), "dataset": (config.datasets, "dataset")}
    if not values:
        raise UserError(f"{where}: the list is empty; list some values, or remove it")
    texts: dict[Any, str] = {}
    for given in values:
        if isinstance(given, list | dict):
            raise UserError(
                f"{where}: a list or mapping can't be swept (found {quote_value(given)}); write "
                "these runs one by one"
            )
        try:
            value = getattr(model.model_validate({setting: given}), setting)
        except ValidationError as error:
            raise UserError(f"{where}: {explain_one(error.errors(include_url=False)[0])}") from None
        text = as_part_of_name(given)
        if setting in names:
            known, kind = names[setting]
            look_up(known, text, where, kind)
        if not NAME.fullmatch(f"{setting}-{text}"):
            raise UserError(
                f"{where}: `{text}` can't be part of a run's name, which has only letters, digits, "
                "`.`, `-` and `_`; write these runs one by one"
            )
        if value in texts:
            problem = "is listed twice" if texts[value] == text else f"equals `{texts[value]}`"
            raise UserError(f"{where}: `{text}` {problem}; remove one")
        texts[value] = text
    part = key.rpartition(".")[2]
    return [(f"{part}-{text}", value) for value, text in texts.items()]


def as_part_of_name(value: Any) -> str:
    """Return a value as part of a run's name: a string as it is, others as YAML writes them."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else yaml_scalar(value)


def _meant_setting(key: str) -> str:
    """Suggest a correction for an unknown key of a sweep."""
    in_groups = [f"`{known}`" for known in SWEEPABLE if known.endswith(f".{key}")]
    if in_groups:
        return f"; did you mean {' or '.join(in_groups)}?"
    return did_you_mean(key, SWEEPABLE) or "; write its group too, as in `train.max_iters`"
