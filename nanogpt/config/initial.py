"""The initial weights of a training: `train.init_from`.

They come from another run's model, a model directory, or a GPT-2 by name. The run uses the same
architecture and the same vocabulary as that model.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from nanogpt.config.corpora import TOKENIZERS
from nanogpt.config.foreign import is_foreign, read_transformers_config
from nanogpt.config.messages import list_some, look_up
from nanogpt.config.parameters import complete
from nanogpt.config.schema import Config, ModelSettings, Run, RunEntry
from nanogpt.errors import UserError
from nanogpt.project import HERE

# Settings that may differ from those of the initial model.
FREE_SETTINGS = ("block_size", "dropout", "init")

# GPT-2's four sizes, by their names on Hugging Face: n_layer, n_head, n_embd.
GPT2_SIZES = {
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}

NO_ENTRY = RunEntry()  # of a run named after its dataset

# Tokenizers with the same vocabulary for all datasets.
FIXED_TOKENIZERS = ("gpt2", "byte")


class SourceError(UserError):
    """A missing or invalid model directory. It only stops commands that need the model."""


@dataclass(frozen=True)
class Source:
    """An initial model.

    name: the value of `init_from`, with `~` expanded. directory: the model in our format, which may
    not exist yet, relative to the project's directory. run: the run that trains it, if any.
    is_imported: whether the rule import_model writes the directory, from GPT-2's weights or a
    transformers model.
    """

    name: str
    directory: Path
    run: str | None = None
    is_imported: bool = False


def find_source(config: Config, run: str) -> Source | None:
    """Return a run's initial model; None for random weights.

    Errors: UserError for an unknown run, a sweep, an ensemble, and runs that start from each other.
    """
    source = _read_source(config, run)
    way = [run]
    following = source
    while following and following.run:
        way.append(following.run)
        if following.run in way[:-1]:
            raise UserError(
                f"{_name_setting(run)}: circular reference: {' -> '.join(way)}; remove `init_from` "
                "from one of them"
            )
        following = _read_source(config, following.run)
    return source


def _read_source(config: Config, run: str) -> Source | None:
    name = _find_setting(config, run)
    if name is None:
        return None
    directory = Path(name)
    if "/" not in name:
        _check_run(config, name, _name_setting(run))
        if name in GPT2_SIZES:
            return Source(name, HERE.imported_models / name, is_imported=True)
        return Source(name, HERE.results / name / "model", run=name)
    maker = directory.parent.name
    if maker in _list_runs(config) and directory == HERE.results / maker / "model":
        return Source(name, directory, run=maker)  # so that it's trained first
    try:
        is_imported = is_foreign(_read_config(config.root / directory))
    except (OSError, ValueError, RecursionError):  # `model_of_source` reports it
        is_imported = False
    if not is_imported:
        return Source(name, directory)
    return Source(name, HERE.imported_models / _name_import(directory), is_imported=True)


def _read_config(directory: Path) -> dict[str, JsonValue]:
    """Read the config.json of a model directory. OSError or ValueError if it isn't one."""
    content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _name_import(directory: Path) -> str:
    """Return a unique name for a transformers directory that's valid in a path."""
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', directory.name).lstrip('._-') or 'model'}-{digest}"


def _find_setting(config: Config, run: str) -> str | None:
    """Return the value of `init_from` from the source with the highest priority."""
    for entry in (config, config.runs.get(run, NO_ENTRY), config.defaults):
        if "init_from" in entry.train.model_fields_set:
            name = entry.train.init_from
            return _with_home(name) if name and name.startswith("~") else name
    return None


def _with_home(name: str) -> str:
    """Expand `~` in a path; return it as it is if there's no such user."""
    with contextlib.suppress(RuntimeError):
        return str(Path(name).expanduser())
    return name


def _list_runs(config: Config) -> list[str]:
    sweeps = set(config.sweep_of.values())
    return list(dict.fromkeys([*config.runs, *(n for n in config.datasets if n not in sweeps)]))


def _check_run(config: Config, name: str, where: str) -> None:
    swept = [run for run, sweep in config.sweep_of.items() if sweep == name]
    if swept and name not in config.runs:
        raise UserError(f"{where}: `{name}` is a sweep; use one of its runs: {list_some(swept)}")
    if name not in (*_list_runs(config), *GPT2_SIZES) and (config.root / name).is_dir():
        raise UserError(f"{where}: no run `{name}`; write `./{name}` to use the directory")
    look_up([*_list_runs(config), *GPT2_SIZES], name, where, "run")
    ensemble = config.runs.get(name, NO_ENTRY).ensemble
    if ensemble:
        raise UserError(
            f"{where}: `{name}` is an ensemble; use one of its runs: {list_some(ensemble)}"
        )


def _name_setting(run: str) -> str:
    return f"runs.{run}.train.init_from"


def model_of_source(source: Source, run: str, root: Path = HERE.root) -> ModelSettings:
    """Return the settings of a model that isn't a run's. root: the project's directory.

    Errors: SourceError for a directory without a model.
    """
    if source.name in GPT2_SIZES:
        n_layer, n_head, n_embd = GPT2_SIZES[source.name]
        return ModelSettings(
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            block_size=1024,
            dropout=0.1,
            bias=True,
            activation="gelu_tanh",
        )
    try:
        return _read_settings(_read_config(root / source.name))
    except FileNotFoundError:
        problem = "not a model directory: config.json is missing"
    except RecursionError:
        problem = "config.json isn't a model's: its brackets are nested too deeply"
    except OSError as error:
        problem = f"config.json can't be read: {error.strerror}"
    except ValueError as error:
        problem = f"config.json can't be used: {error}"
    raise SourceError(
        f"{_name_setting(run)}: {source.name}: {problem}; use a run, a model directory, or one of "
        f"{', '.join(GPT2_SIZES)}"
    )


def _read_settings(content: Mapping[str, JsonValue]) -> ModelSettings:
    """Return the settings in a config.json of nanogpt or of transformers."""
    if is_foreign(content):
        model = read_transformers_config(content)
        has_bias = model.settings.bias and model.own.bias
        return model.settings.model_copy(update={"bias": has_bias})
    if content["architecture"] != "gpt2":
        raise ValueError(f"unknown architecture `{content['architecture']}`")
    known = {name: value for name, value in content.items() if name in ModelSettings.model_fields}
    # The first models lacked `position`.
    return complete(ModelSettings, {"position": "learned", **known})


def check_model_agrees(own: ModelSettings, source: ModelSettings, name: str, where: str) -> None:
    """Raise UserError if a model can't start from the weights of another.

    name: the other model's, for messages.
    """
    for setting in ModelSettings.model_fields:
        value, theirs = getattr(own, setting), getattr(source, setting)
        if setting not in FREE_SETTINGS and value != theirs:
            raise UserError(
                f"{where}: `{setting}` is {_show(value)}, but {_show(theirs)} in the initial model "
                f"`{name}`; remove `{setting}` from the run's settings"
            )
    if own.block_size > source.block_size:
        raise UserError(
            f"{where}: `block_size` {own.block_size} is larger than that of the initial model "
            f"`{name}`, {source.block_size}; lower or remove it"
        )


def _show(value: JsonValue) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def check_begins(config: Config, run: Run, source: Source, model: ModelSettings) -> None:
    """Raise UserError if a run's settings don't fit its initial model. model: the latter's."""
    check_model_agrees(run.model, model, source.name, f"runs.{run.name}.model")
    if source.run:
        entry = config.runs.get(source.run, NO_ENTRY)
        theirs = _find_vocabulary(config, entry.dataset or source.run)
    elif source.name in GPT2_SIZES:
        theirs = "gpt2"
    else:
        return  # its tokenizer.json is compared when the training starts
    own = _find_vocabulary(config, run.dataset)
    if own != theirs:
        raise UserError(
            f"{_name_setting(run.name)}: `{source.name}` uses {_name_tokens(theirs)}, but this run "
            f"uses {_name_tokens(own)}; set `tokenizer: {theirs}` in `datasets.{run.dataset}`, or "
            f"make another dataset with `nanogpt prepare {run.dataset} --tokenizer={theirs}`"
        )


def find_tokenizer(config: Config, dataset: str) -> tuple[str, str]:
    """Return a dataset's kind of tokenizer, such as char, and the dataset that it belongs to.

    That's another dataset if this one uses its tokenizer.
    """
    while (tokenizer := config.datasets[dataset].tokenizer) not in TOKENIZERS:
        dataset = tokenizer
    return tokenizer, dataset


def _find_vocabulary(config: Config, dataset: str) -> str:
    """Return an identifier of a dataset's vocabulary: a tokenizer or the dataset it belongs to."""
    tokenizer, maker = find_tokenizer(config, dataset)
    return tokenizer if tokenizer in FIXED_TOKENIZERS else maker


def _name_tokens(vocabulary: str) -> str:
    words = {"gpt2": "GPT-2's tokenizer", "byte": "bytes"}
    return words.get(vocabulary, f"the tokenizer of dataset `{vocabulary}`")
