"""Variants: runs and datasets with some settings changed by command-line flags."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.messages import explain_one, look_up, quote_value
from nanogpt.config.patterns import NAME
from nanogpt.config.resolving import check_trains, corpus_of, find_dataset, resolve_run, run_names
from nanogpt.config.schema import IMPLIED, Config, Run, RunEntry
from nanogpt.config.sweeps import LONGEST_NAME, as_part_of_name
from nanogpt.config.values import Settings
from nanogpt.errors import UserError
from nanogpt.project import Project

# Groups that are left out of a variant's name, as in sweeps.
PLAIN_GROUPS = ("", "model", "train", "dataset", "corpus")

# Settings with another name in sweeps.
SWEPT = {"model.preset": "model"}

# Values of a flag that mean "no value".
NO_VALUE = ("none", "null", "None")

DIGEST_LENGTH = 8  # hex digits; stands for a value that can't be part of a name

# The model of each group of settings; "" is the run's entry itself.
GROUPS: dict[str, type[Settings]] = {
    "": RunEntry,
    **{name: type(settings) for name, settings in RunEntry() if name in RunEntry.GROUPS},
    "dataset": Dataset,
    "corpus": Corpus,
}
ORDER = [(group, setting) for group, model in GROUPS.items() for setting in model.model_fields]


@dataclass(frozen=True)
class Given:
    """A setting from a flag. value: the text that was typed, or the parsed value."""

    group: str
    setting: str
    value: Any

    @property
    def name(self) -> str:
        """The name in messages: `train.max_iters`."""
        return f"{self.group}.{self.setting}" if self.group else self.setting


@dataclass(frozen=True)
class Variant:
    """A name and the entries that define it, by map. No entries if it already exists."""

    name: str
    entries: Mapping[str, Mapping[str, Any]]


def parse(given: Sequence[Given], bases: Mapping[str, Settings]) -> list[Given]:
    """Check and convert the values of flags. If a setting is repeated, the last value counts.

    bases: the settings that the flags change, by group. The result is in the schema's order.

    Errors: UserError that names the setting.
    """
    raw = {(one.group, one.setting): _untyped(one) for one in given}
    parsed = []
    for group in {group: None for group, _ in raw}:
        settings = {setting: value for (of, setting), value in raw.items() if of == group}
        there = bases[group].model_dump(exclude_unset=True)
        try:
            checked = GROUPS[group].model_validate({**there, **settings})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join([group, *map(str, problem["loc"])]).strip(".")
            raise UserError(f"{where}: {explain_one(problem)}") from None
        parsed += [Given(group, setting, getattr(checked, setting)) for setting in settings]
    return sorted(parsed, key=lambda one: ORDER.index((one.group, one.setting)))


def _untyped(given: Given) -> Any:
    """Convert a typed text to a number, or for a setting with a list, to a list."""
    value = given.value
    if not isinstance(value, str):
        return value
    annotation = GROUPS[given.group].model_fields[given.setting].annotation
    if value in NO_VALUE and "None" in str(annotation):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        if "list[" in str(annotation):
            return json.loads(value) if value.startswith("[") else [value]
        if annotation in (int, int | None):
            return int(value)
        if annotation is float:
            return float(value)
    return value


def resolve_with(config: Config, base: str, given: Sequence[Given]) -> Run:
    """Resolve a run with flags applied, under its own name."""
    resolve_run(config, base)  # UserError for an unknown name
    entry = _entry(config, base)
    return _resolve(config, base, _lay_over(entry, parse(given, _bases(entry))))


def vary_run(config: Config, base: str, given: Sequence[Given], name: str = "") -> Variant:
    """Apply flags to a run. Returns the run itself if they change nothing.

    name: the new run's name; if empty, it's made from the changed settings.

    Errors: UserError for an ensemble, a wrong setting, and a name that's taken.
    """
    before = resolve_run(config, base)
    check_trains(before)
    entry = _entry(config, base)
    parsed = parse(given, _bases(entry))
    wanted = _resolve(config, base, _lay_over(entry, parsed))
    if wanted == before and name in ("", base):
        return Variant(base, {})
    for one in tuple(parsed):  # leave out flags that change nothing
        fewer = [other for other in parsed if other is not one]
        with contextlib.suppress(UserError):  # the others don't fit together without this one
            if _resolve(config, base, _lay_over(entry, fewer)) == wanted:
                parsed = fewer
    name = name or _variant_name(base, parsed)
    if _is_there(config, name, wanted):
        return Variant(name, {})
    varied = _lay_over(entry, parsed)
    content = varied.model_dump(mode="json", exclude_unset=True, exclude={"sweep", "dataset"})
    return Variant(name, {"runs": {name: {"dataset": wanted.dataset, **content}}})


def add_run(config: Config, variant: Variant) -> Config:
    """Return a config with a variant's run, as if its entries were in config.yaml."""
    entries = variant.entries.get("runs", {})
    added = {name: RunEntry.model_validate(entry) for name, entry in entries.items()}
    changed = config.model_copy(update={"runs": {**config.runs, **added}})
    changed._sweep_of = config.sweep_of
    return changed


def vary_dataset(config: Config, base: str, given: Sequence[Given], name: str = "") -> Variant:
    """Apply flags to a dataset. Returns the dataset itself if they change nothing.

    Errors: UserError for a wrong setting, and a name that's taken.
    """
    look_up(config.datasets, base, "datasets", "dataset")
    corpus, dataset = find_dataset(config, base)
    own = dataset.model_copy(update={"corpus": corpus_of(config, base)})
    bases: dict[str, Settings] = {"corpus": corpus, "dataset": own}
    parsed = parse(given, bases)
    changed = [one for one in parsed if getattr(bases[one.group], one.setting) != one.value]
    if not changed and name in ("", base):
        return Variant(base, {})
    of_dataset, of_corpus = (
        {one.setting: one.value for one in changed if one.group == group}
        for group in ("dataset", "corpus")
    )
    own = own.model_copy(update=of_dataset)
    corpus = look_up(config.corpora, str(own.corpus), "dataset.corpus", "corpus")
    name = name or _variant_name(base, changed)
    return new_dataset(config, name, own, corpus.model_copy(update=of_corpus))


def new_dataset(config: Config, name: str, dataset: Dataset, corpus: Corpus) -> Variant:
    """Define a dataset, and a corpus of the same name unless `dataset.corpus` already equals it.

    Errors: UserError for a name that another dataset or corpus has.
    """
    if name in config.datasets:
        there = find_dataset(config, name)
        found = _differences(
            {"corpus": there[0], "dataset": there[1].model_copy(update={"corpus": None})},
            {"corpus": corpus, "dataset": dataset.model_copy(update={"corpus": None})},
        )
        if found:
            raise UserError(_exists(config, "dataset", name, found))
        return Variant(name, {})
    entries: dict[str, dict[str, Any]] = {}
    if config.corpora.get(str(dataset.corpus)) != corpus:
        if name in config.corpora:
            raise UserError(f"corpora: `{name}` already exists; give the dataset another name")
        entries["corpora"] = {name: corpus.model_dump(mode="json", exclude_unset=True)}
        dataset = dataset.model_copy(update={"corpus": name})
    entries["datasets"] = {name: dataset.model_dump(mode="json", exclude_unset=True)}
    return Variant(name, entries)


def _bases(entry: RunEntry) -> dict[str, Settings]:
    return {"": entry, **{group: getattr(entry, group) for group in RunEntry.GROUPS}}


def _entry(config: Config, base: str) -> RunEntry:
    entry = config.runs.get(base, RunEntry())
    return entry.model_copy(update={"dataset": entry.dataset or base})


def _lay_over(entry: RunEntry, given: Sequence[Given]) -> RunEntry:
    """Apply parsed flags to a run's entry."""
    changes: dict[str, dict[str, Any]] = {}
    for one in given:
        changes.setdefault(one.group, dict(IMPLIED.get(one.group, {})))[one.setting] = one.value
    groups = {
        group: getattr(entry, group).model_copy(update=settings)
        for group, settings in changes.items()
        if group
    }
    return entry.model_copy(update={**changes.get("", {}), **groups})


def _resolve(config: Config, name: str, entry: RunEntry) -> Run:
    look_up(config.datasets, str(entry.dataset), "dataset", "dataset")
    changed = config.model_copy(update={"runs": {**config.runs, name: entry}})
    changed._sweep_of = config.sweep_of
    return resolve_run(changed, name)


def _is_there(config: Config, name: str, wanted: Run) -> bool:
    """Whether a run of this name exists. UserError if its settings differ from those wanted."""
    if name not in (*run_names(config), *config.sweep_of.values()):
        return False
    there = resolve_run(config, name)
    found = _differences(
        {"dataset": there.dataset, **{group: getattr(there, group) for group in RunEntry.GROUPS}},
        {"dataset": wanted.dataset, **{group: getattr(wanted, group) for group in RunEntry.GROUPS}},
    )
    if found or there.ensemble:
        raise UserError(_exists(config, "run", name, found or ["it's an ensemble"]))
    return True


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the settings that differ, with the existing values."""
    found = []
    for group, value in wanted.items():
        other = there[group]
        if isinstance(value, Settings) and isinstance(other, Settings):
            found += [
                f"{group}.{setting} is {quote_value(getattr(other, setting))}"
                for setting in type(value).model_fields
                if getattr(value, setting) != getattr(other, setting)
            ]
        elif value != other:
            found.append(f"{group} is {quote_value(other)}")
    return found


def _exists(config: Config, kind: str, name: str, differences: Sequence[str]) -> str:
    fragment = Project(config.root).fragments / f"{name}.yaml"
    change = f", or change it in {fragment}" if fragment.is_file() else ""
    more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
    return (
        f"{kind}s: `{name}` already exists with other settings ({differences[0]}{more}); give the "
        f"new one another name{change}"
    )


def _variant_name(base: str, given: Sequence[Given]) -> str:
    """Return `<base>.<setting>-<value>...`, with a digest for values that can't be in a name."""
    parts = [base]
    for one in given:
        text = as_part_of_name(one.value)
        if not NAME.fullmatch(f"x{text}"):
            text = _digest(one.value)
        label = SWEPT.get(one.name) or (one.setting if one.group in PLAIN_GROUPS else one.name)
        parts.append(f"{label}-{text}")
    name = ".".join(parts)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{base}.{_digest([(one.name, one.value) for one in given])}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:DIGEST_LENGTH]
