"""Compare the manifests of two results, or of a result and its present request.

A difference is a setting, an input, the code or the environment. The environment affects the last
bits of a result.
"""

import importlib.util
import json
import re
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

# The settings of each group of parameters. Omitted ones have their neutral values.
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

# The compared fields of an environment, and their names in messages. (`layouts` repeats them for
# the parts of a training.)
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

CHANGES_SHOWN = 4  # changed functions that are listed
VALUE_SHOWN = 60  # characters of a value that are shown
NONE = "none"


@dataclass(frozen=True)
class Difference:
    """One difference. what: its name. before, now: its values as text."""

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

    resolved: whether `before` has resolved devices and dtypes and `now` may not. Then `auto`
    equals any value.
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
    """Parameters by dotted name, with omitted ones at their neutral values."""
    found: dict[str, JsonValue] = {}
    for group, value in parameters.items():
        if not isinstance(value, dict):
            found[group] = value
            continue
        kind = GROUPS.get(group)
        # A stage may get only some settings of a group. The others have no effect on it.
        neutral = neutral_values(kind) if kind else {}
        found |= {f"{group}.{name}": one for name, one in {**neutral, **value}.items()}
    return found


def in_words(value: JsonValue) -> str:
    """A setting's value as text, spelled as in config.yaml."""
    if value is None:
        return NONE
    text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value)
    return text if len(text) <= VALUE_SHOWN else f"{text[: VALUE_SHOWN - 1]}…"


def input_differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """Inputs with different contents and inputs that only one of two results has, in order.

    before, now: sha256 by path. Inputs are matched by role, so that two runs can be compared.
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
    """The role of an input, the same for every run: `model/tokenizer.json` is the model's."""
    parts = Path(path).parts
    return "/".join(parts[-2:] if parts[-2:-1] == ("model",) else parts[-1:])


def code_differences(
    project: Project,
    before: str,
    now: str,
    functions: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Difference]:
    """The functions that differ between two versions of the code, given their digests.

    functions: the digests for `now`; by default, those that were stored for it.
    """
    if before == now:
        return []
    old = noted_functions(project, before)
    new = functions or noted_functions(project, now)
    if old is None or new is None:
        why = "in unknown functions, because an older nanogpt didn't record them"
        return [Difference("code", f"the code, {why}")]
    found = changes(old, new)
    if not found:
        return [Difference("code", "the rule's command, or the module behind an import")]
    shown = [Difference("code", str(change)) for change in found[:CHANGES_SHOWN]]
    more = len(found) - len(shown)
    return [*shown, *([Difference("code", f"and {more} more")] if more else [])]


def environment_differences(before: Environment, now: Environment) -> list[Difference]:
    """The differences between two environments, in the fields that both have."""
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
    """This machine's environment, as far as it's known without importing torch.

    The numbers of threads and ranks are copied from `like`, because the next call can have any.
    """
    content = environment(like.threads).model_dump(include={"nanogpt", "python", "platform", "cpu"})
    content |= {"threads": like.threads, "ranks": like.ranks}
    if like.torch is not None:
        content["torch"] = _torch_version()
    return Environment.model_validate(content)


def _torch_version() -> str | None:
    """Return `torch.__version__` without importing torch; None if torch isn't installed.

    The metadata of some wheels lack a part of it, such as `+cu130`.
    """
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    text = Path(torch.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)
    return found[1] if found else None


def manifest_differences(project: Project, before: Manifest, now: Manifest) -> list[Difference]:
    """All differences between two results of a stage."""
    return [
        *setting_differences(before.parameters, now.parameters),
        *input_differences(before.inputs, now.inputs),
        *code_differences(project, before.code, now.code),
        *environment_differences(before.environment, now.environment),
    ]
