"""What differs between two results, or between a result and what would be made now, by manifests.

A difference is one of: a setting, an input, the code, or the environment, which decides last bits.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, JsonValue

from nanogpt.artifacts.code_functions import changes, noted_functions
from nanogpt.artifacts.manifests import environment
from nanogpt.artifacts.records.manifests import Environment, Manifest
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.parameters import neutral_values
from nanogpt.config.schema import (
    BenchSettings,
    EvalSettings,
    ModelSettings,
    NgramSettings,
    SampleSettings,
    TrainSettings,
)
from nanogpt.project import Project

Kind = Literal["setting", "input", "code", "environment"]

# The settings of each group of parameters, for the neutral values of those that are left out.
GROUPS: dict[str, type[BaseModel]] = {
    "corpus": Corpus,
    "dataset": Dataset,
    "model": ModelSettings,
    "train": TrainSettings,
    "eval": EvalSettings,
    "sample": SampleSettings,
    "bench": BenchSettings,
    "ngram": NgramSettings,
}

# Of an environment, in words. layouts say the same of the parts of a training.
ENVIRONMENT = {
    "torch": "torch",
    "cpu": "CPU",
    "cpu_capability": "CPU capability",
    "gpu": "GPU",
    "threads": "threads",
    "ranks": "ranks",
    "python": "Python",
    "nanogpt": "nanogpt",
    "platform": "platform",
}

CHANGES_SHOWN = 4  # functions that are named, of those that changed
VALUE_SHOWN = 60  # characters of a value
NONE = "none"


@dataclass(frozen=True)
class Difference:
    """One thing that differs. what: its name. before, now: its values, in words."""

    kind: Kind
    what: str
    before: str = ""
    now: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.before} -> {self.now}" if self.before else self.what


def setting_differences(
    before: Mapping[str, JsonValue], now: Mapping[str, JsonValue], *, resolved: bool = False
) -> list[Difference]:
    """The settings that differ between two requests.

    resolved: whether the devices and dtypes of `before` are resolved, and those of `now` perhaps
    not: `auto` is then the same as any.
    """
    old, new = _flat(before), _flat(now)
    found = []
    for name in [*new, *(name for name in old if name not in new)]:
        first, second = old.get(name), new.get(name)
        is_device = name.endswith((".device", ".dtype"))
        if first == second or (resolved and is_device and second == "auto"):
            continue
        found.append(Difference("setting", name, in_words(first), in_words(second)))
    return found


def _flat(parameters: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Parameters by dotted names, with those at their neutral values."""
    found: dict[str, JsonValue] = {}
    for group, value in parameters.items():
        if not isinstance(value, dict):
            found[group] = value
            continue
        kind = GROUPS.get(group)
        # A stage that gets only some settings of a group lacks others, which don't matter there.
        neutral = neutral_values(kind) if kind else {}
        found |= {f"{group}.{name}": one for name, one in {**neutral, **value}.items()}
    return found


def in_words(value: JsonValue) -> str:
    """A setting's value, as config.yaml could have it."""
    if value is None:
        return NONE
    text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value)
    return text if len(text) <= VALUE_SHOWN else f"{text[: VALUE_SHOWN - 1]}…"


def input_differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """Inputs that differ in contents or that one of two results lacks, in order.

    before, now: sha256 by path. Those of two runs are compared by their names.
    """
    have_roles = all(len(set(map(role_of, paths))) == len(paths) for paths in (before, now))
    key = role_of if have_roles else str
    old, new = ({key(path): path for path in inputs} for inputs in (before, now))
    found = []
    for role in dict.fromkeys([*new, *old]):
        first, second = old.get(role), new.get(role)
        digests = (before.get(first or ""), now.get(second or ""))
        if digests[0] != digests[1]:
            words = [digest[:12] if digest else NONE for digest in digests]
            found.append(Difference("input", second or first or "", *words))
    return found


def role_of(path: str) -> str:
    """What an input is to a stage, whatever its run: `model/tokenizer.json` is the model's."""
    parts = Path(path).parts
    return "/".join(parts[-2:] if parts[-2:-1] == ("model",) else parts[-1:])


def code_differences(
    project: Project,
    before: str,
    now: str,
    functions: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Difference]:
    """What differs between two codes, by their digests: module and function.

    functions: those of the code that is `now`; none: those that were noted.
    """
    if before == now:
        return []
    old = noted_functions(project, before)
    new = functions or noted_functions(project, now)
    if old is None or new is None:
        why = "which functions isn't known: it was made before nanogpt noted them"
        return [Difference("code", f"the code, {why}")]
    found = changes(old, new)
    if not found:
        return [Difference("code", "the command of its rule, or where an import points")]
    shown = [Difference("code", str(change)) for change in found[:CHANGES_SHOWN]]
    more = len(found) - len(shown)
    return [*shown, *([Difference("code", f"and {more} more")] if more else [])]


def environment_differences(before: Environment, now: Environment) -> list[Difference]:
    """What differs of what decides last bits; only what both say."""
    found = []
    for field, words in ENVIRONMENT.items():
        first, second = getattr(before, field), getattr(now, field)
        known = {field} <= before.model_fields_set & now.model_fields_set
        if known and first != second:
            found.append(Difference("environment", words, _named(first), _named(second)))
    return found


def _named(value: object) -> str:
    return NONE if value is None else str(value)


def environment_here(like: Environment) -> Environment:
    """This machine, as far as it's known without torch. like: what made the result.

    threads: those of `like`, as the next call can have any number.
    """
    content = environment(like.threads).model_dump(include={"nanogpt", "python", "platform", "cpu"})
    content |= {"threads": like.threads, "ranks": like.ranks}
    if like.torch is not None:
        try:
            content["torch"] = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            content["torch"] = None
    return Environment.model_validate(content)


def manifest_differences(project: Project, before: Manifest, now: Manifest) -> list[Difference]:
    """All that differs between what made two results of a stage."""
    return [
        *setting_differences(before.parameters, now.parameters),
        *input_differences(before.inputs, now.inputs),
        *code_differences(project, before.code, now.code),
        *environment_differences(before.environment, now.environment),
    ]
