"""What a training begins with, if not with random weights: `train.init_from`.

A run's model, a model directory, or one of GPT-2's by name. The run that begins with it has its
architecture, and tokens of the same vocabulary.
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

# Settings in which a model may differ from the one that it begins with.
FREE_SETTINGS = ("block_size", "dropout", "init")

# GPT-2's four sizes by the names that Hugging Face gives them: n_layer, n_head, n_embd.
GPT2_SIZES = {
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}

# Tokenizers whose vocabulary is the same for all datasets.
FIXED_TOKENIZERS = ("gpt2", "byte")


class SourceError(UserError):
    """A model directory that isn't there, or isn't one: only those who need it are stopped."""


@dataclass(frozen=True)
class Source:
    """A model to begin with.

    name: what `init_from` says, with `~` expanded. directory: where the model lies in our form, or
    will lie, seen from the project's directory. run: the run whose model it is, if it's one's.
    is_imported: whether the rule import_model makes the directory, from GPT-2's weights or from a
    directory of transformers.
    """

    name: str
    directory: Path
    run: str | None = None
    is_imported: bool = False


def find_source(config: Config, run: str) -> Source | None:
    """What a run begins with; None with random weights.

    Errors: UserError for a name that is no run's, a sweep's or an ensemble's, and for runs that
    begin with each other.
    """
    source = _read_source(config, run)
    way = [run]
    following = source
    while following and following.run:
        way.append(following.run)
        if following.run in way[:-1]:
            raise UserError(
                f"{_name_setting(run)}: a circle: {' -> '.join(way)}; let one of them begin "
                "without `init_from`"
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
    except (OSError, ValueError, RecursionError):  # `model_of_source` says so
        is_imported = False
    if not is_imported:
        return Source(name, directory)
    return Source(name, HERE.imported_models / _name_import(directory), is_imported=True)


def _read_config(directory: Path) -> dict[str, JsonValue]:
    """The config.json of a model directory; OSError or ValueError if it isn't one."""
    content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _name_import(directory: Path) -> str:
    """A name for a directory of transformers that differs for each and is valid in a path."""
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', directory.name).lstrip('._-') or 'model'}-{digest}"


def _find_setting(config: Config, run: str) -> str | None:
    """The setting, by the strongest source that has it."""
    for entry in (config, config.runs.get(run, RunEntry()), config.defaults):
        if "init_from" in entry.train.model_fields_set:
            name = entry.train.init_from
            return _with_home(name) if name and name.startswith("~") else name
    return None


def _with_home(name: str) -> str:
    """A path with the home directory that it begins with; as it is if there's no such user."""
    with contextlib.suppress(RuntimeError):
        return str(Path(name).expanduser())
    return name


def _list_runs(config: Config) -> list[str]:
    sweeps = set(config.sweep_of.values())
    return list(dict.fromkeys([*config.runs, *(n for n in config.datasets if n not in sweeps)]))


def _check_run(config: Config, name: str, where: str) -> None:
    swept = [run for run, sweep in config.sweep_of.items() if sweep == name]
    if swept and name not in config.runs:
        raise UserError(f"{where}: `{name}` is a sweep; its runs are {list_some(swept)}")
    if name not in (*_list_runs(config), *GPT2_SIZES) and (config.root / name).is_dir():
        raise UserError(f"{where}: no run `{name}`; write `./{name}` for the directory")
    look_up([*_list_runs(config), *GPT2_SIZES], name, where, "run")
    ensemble = config.runs.get(name, RunEntry()).ensemble
    if ensemble:
        raise UserError(
            f"{where}: `{name}` is an ensemble; name one of its runs: {list_some(ensemble)}"
        )


def _name_setting(run: str) -> str:
    return f"runs.{run}.train.init_from"


def model_of_source(source: Source, run: str, root: Path = HERE.root) -> ModelSettings:
    """The settings of a model that isn't a run's. root: the project's directory.

    Errors: SourceError for a directory without one.
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
        problem = "no model here; config.json is missing"
    except RecursionError:
        problem = "config.json isn't a model's: nested too deeply"
    except OSError as error:
        problem = f"config.json can't be read: {error.strerror}"
    except ValueError as error:
        problem = f"config.json isn't that of a model to begin with: {error}"
    raise SourceError(
        f"{_name_setting(run)}: {source.name}: {problem}; name a run, a directory of a model, or "
        f"one of {', '.join(GPT2_SIZES)}"
    )


def _read_settings(content: Mapping[str, JsonValue]) -> ModelSettings:
    """The settings in a config.json of nanogpt or transformers, as `import_model` reads it."""
    if is_foreign(content):
        model = read_transformers_config(content)
        has_bias = model.settings.bias and model.own.bias
        return model.settings.model_copy(update={"bias": has_bias})
    if content["architecture"] != "gpt2":
        raise ValueError(f"architecture {content['architecture']}")
    known = {name: value for name, value in content.items() if name in ModelSettings.model_fields}
    # The first models lacked `position`.
    return complete(ModelSettings, {"position": "learned", **known})


def check_model_agrees(own: ModelSettings, source: ModelSettings, name: str, where: str) -> None:
    """UserError if a model can't begin with the weights of another one.

    name: of that one, for messages.
    """
    for setting in ModelSettings.model_fields:
        value, theirs = getattr(own, setting), getattr(source, setting)
        if setting not in FREE_SETTINGS and value != theirs:
            raise UserError(
                f"{where}: {setting} is {_show(value)}, but that of `{name}`, which it begins "
                f"with, is {_show(theirs)}; leave it out"
            )
    if own.block_size > source.block_size:
        raise UserError(
            f"{where}: block_size {own.block_size} is above {source.block_size}, that of `{name}`, "
            "which it begins with; lower it, or leave it out"
        )


def _show(value: JsonValue) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def check_begins(config: Config, run: Run, source: Source, model: ModelSettings) -> None:
    """UserError if a run can't begin with a source, by settings. model: the source's."""
    check_model_agrees(run.model, model, source.name, f"runs.{run.name}.model")
    if source.run:
        entry = config.runs.get(source.run, RunEntry())
        theirs = _find_vocabulary(config, entry.dataset or source.run)
    elif source.name in GPT2_SIZES:
        theirs = "gpt2"
    else:
        return  # its tokenizer.json is compared before the training
    own = _find_vocabulary(config, run.dataset)
    if own != theirs:
        raise UserError(
            f"{_name_setting(run.name)}: `{source.name}` has {_name_tokens(theirs)}, and this run "
            f"{_name_tokens(own)}; write `tokenizer: {theirs}` in datasets.{run.dataset}, or make "
            f"another dataset: `nanogpt prepare {run.dataset} --tokenizer={theirs}`"
        )


def find_tokenizer(config: Config, dataset: str) -> tuple[str, str]:
    """The tokenizer that a dataset ends up with, such as char, and the dataset that it's made for.

    They differ from the dataset's own where it takes those of another one.
    """
    while (tokenizer := config.datasets[dataset].tokenizer) not in TOKENIZERS:
        dataset = tokenizer
    return tokenizer, dataset


def _find_vocabulary(config: Config, dataset: str) -> str:
    """What has the same vocabulary has the same of these: a tokenizer, or the dataset it's of."""
    tokenizer, maker = find_tokenizer(config, dataset)
    return tokenizer if tokenizer in FIXED_TOKENIZERS else maker


def _name_tokens(vocabulary: str) -> str:
    words = {"gpt2": "GPT-2's tokens", "byte": "bytes"}
    return words.get(vocabulary, f"the tokens of dataset {vocabulary}")
