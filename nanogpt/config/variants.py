"""Variants: a run or a dataset with some settings changed by flags, its name and its entry."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.messages import explain_one, look_up, show_value
from nanogpt.config.patterns import NAME
from nanogpt.config.resolving import check_trains, corpus_of, find_dataset, resolve_run, run_names
from nanogpt.config.schema import IMPLIED, Config, Run, RunEntry
from nanogpt.config.sweeps import LONGEST_NAME, as_part_of_name
from nanogpt.config.values import Settings
from nanogpt.errors import UserError

# The settings of a variant's name that are written without their group, as in sweeps.
PLAIN_GROUPS = ("", "model", "train", "dataset", "corpus")

# What sweeps call otherwise than the schema.
SWEPT = {"model.preset": "model"}

# How a flag says that a setting has no value.
NO_VALUE = ("none", "null", "None")

DIGEST_LENGTH = 8  # hex digits, of what can't be in a name

# By the group that a flag sets; "" is a run's own entry.
GROUPS: dict[str, type[Settings]] = {
    "": RunEntry,
    **{name: type(settings) for name, settings in RunEntry() if name in RunEntry.GROUPS},
    "dataset": Dataset,
    "corpus": Corpus,
}
ORDER = [(group, setting) for group, model in GROUPS.items() for setting in model.model_fields]


@dataclass(frozen=True)
class Given:
    """A setting that a flag gives: a text as it was typed, or its value."""

    group: str
    setting: str
    value: Any

    @property
    def name(self) -> str:
        """As messages name it: `train.max_iters`."""
        return f"{self.group}.{self.setting}" if self.group else self.setting


@dataclass(frozen=True)
class Variant:
    """A name, and the entries that make it, by map: none if it's there already."""

    name: str
    entries: Mapping[str, Mapping[str, Any]]


def parse(given: Sequence[Given], bases: Mapping[str, Settings]) -> list[Given]:
    """The flags with checked values, in the order of the schema; of one setting, the last.

    bases: by group, what the flags are laid over.

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
    """A typed text as config.yaml would have it: a number, or of a list, its JSON or an item."""
    value = given.value
    if not isinstance(value, str):
        return value
    annotation = GROUPS[given.group].model_fields[given.setting].annotation
    if value in NO_VALUE and "None" in str(annotation):
        return None
    with contextlib.suppress(ValueError):
        if "list[" in str(annotation):
            return json.loads(value) if value.startswith("[") else [value]
        if annotation in (int, int | None):
            return int(value)
        if annotation is float:
            return float(value)
    return value


def resolve_with(config: Config, base: str, given: Sequence[Given]) -> Run:
    """What a run resolves to with flags laid over it, under its own name."""
    resolve_run(config, base)  # for an unknown name
    entry = _entry(config, base)
    return _resolve(config, base, _lay_over(entry, parse(given, _bases(entry))))


def vary_run(config: Config, base: str, given: Sequence[Given], name: str = "") -> Variant:
    """The run that a run becomes by flags; itself, if they change nothing.

    name: its name, if not one made of the settings that differ.

    Errors: UserError for an ensemble, a wrong setting, and a name that another run has.
    """
    before = resolve_run(config, base)
    check_trains(before)
    entry = _entry(config, base)
    parsed = parse(given, _bases(entry))
    wanted = _resolve(config, base, _lay_over(entry, parsed))
    if wanted == before and name in ("", base):
        return Variant(base, {})
    for one in tuple(parsed):  # what changes nothing is left out
        fewer = [other for other in parsed if other is not one]
        with contextlib.suppress(UserError):  # without it, the rest don't go together
            if _resolve(config, base, _lay_over(entry, fewer)) == wanted:
                parsed = fewer
    name = name or _variant_name(base, parsed)
    if _is_there(config, name, wanted):
        return Variant(name, {})
    varied = _lay_over(entry, parsed)
    content = varied.model_dump(mode="json", exclude_unset=True, exclude={"sweep", "dataset"})
    return Variant(name, {"runs": {name: {"dataset": wanted.dataset, **content}}})


def add_run(config: Config, variant: Variant) -> Config:
    """A config with the run of a variant, as if its entries were written."""
    entries = variant.entries.get("runs", {})
    added = {name: RunEntry.model_validate(entry) for name, entry in entries.items()}
    changed = config.model_copy(update={"runs": {**config.runs, **added}})
    changed._sweep_of = config.sweep_of
    return changed


def vary_dataset(config: Config, base: str, given: Sequence[Given], name: str = "") -> Variant:
    """The dataset that a dataset becomes by flags; itself, if they change nothing.

    Errors: UserError for a wrong setting, and a name that another dataset has.
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
    """A dataset of a name, on a corpus that gets the same name unless it's there.

    Errors: UserError for a name that another dataset or corpus has.
    """
    if name in config.datasets:
        there = find_dataset(config, name)
        found = _differences(
            {"corpus": there[0], "dataset": there[1].model_copy(update={"corpus": None})},
            {"corpus": corpus, "dataset": dataset.model_copy(update={"corpus": None})},
        )
        if found:
            raise UserError(_exists("dataset", name, found))
        return Variant(name, {})
    entries: dict[str, dict[str, Any]] = {}
    if config.corpora.get(str(dataset.corpus)) != corpus:
        if name in config.corpora:
            raise UserError(f"corpora: `{name}` is there already; give the dataset another name")
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
    """A run's entry with parsed flags laid over it."""
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
    """Whether a run of a name is the one that is wanted. UserError if it's another one."""
    if name not in (*run_names(config), *config.sweep_of.values()):
        return False
    there = resolve_run(config, name)
    found = _differences(
        {"dataset": there.dataset, **{group: getattr(there, group) for group in RunEntry.GROUPS}},
        {"dataset": wanted.dataset, **{group: getattr(wanted, group) for group in RunEntry.GROUPS}},
    )
    if found or there.ensemble:
        raise UserError(_exists("run", name, found or ["ensemble"]))
    return True


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The settings in which two differ, with the value that is there."""
    found = []
    for group, value in wanted.items():
        other = there[group]
        if isinstance(value, Settings) and isinstance(other, Settings):
            found += [
                f"{group}.{setting} {show_value(getattr(other, setting))}"
                for setting in type(value).model_fields
                if getattr(value, setting) != getattr(other, setting)
            ]
        elif value != other:
            found.append(f"{group} {show_value(other)}")
    return found


def _exists(kind: str, name: str, differences: Sequence[str]) -> str:
    more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
    return (
        f"{kind}s: `{name}` exists with other settings ({differences[0]}{more}); give the new "
        "one another name"
    )


def _variant_name(base: str, given: Sequence[Given]) -> str:
    """`<base>.<setting>-<value>` for each setting; a digest for what can't be in a name."""
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
