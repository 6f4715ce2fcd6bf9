"""Load config.yaml into a checked `Config`: YAML, the user's texts, names, sweeps."""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    ValidationError,
)

from nanogpt.config.corpora import TOKENIZERS, Corpus, Dataset
from nanogpt.config.ensembles import expand_ensembles
from nanogpt.config.fragments import merge_fragments
from nanogpt.config.initial import SourceError
from nanogpt.config.messages import explain, look_up
from nanogpt.config.patterns import NAME, NAME_RULE, RESERVED_RUN_NAMES
from nanogpt.config.resolving import expand, find_dataset, resolve_run, run_names
from nanogpt.config.schema import Config, Report
from nanogpt.config.sweeps import expand_sweeps
from nanogpt.errors import UserError, shorten
from nanogpt.files.atomic import NAME_BYTES
from nanogpt.project import HERE, Project

# Settings of a corpus; exactly one of them gives the location of its text.
SOURCES = {"url", "files", "builtin"}

# The longest suffix that the workflow adds to the name of a download.
LONGEST_END = ".download.manifest.json"

# Snakemake refuses a name that ends in this many repetitions, as one that could grow forever.
REPETITIONS = 20
REPETITIVE = re.compile(rf"(.+?)\1{{{REPETITIONS - 1}}}$")


def find_texts(project: Project = HERE) -> list[str]:
    """Return the names of the user's texts in resources/texts/, sorted, without hidden files."""
    files = project.texts.glob("[!.]*") if project.texts.is_dir() else ()
    return sorted(f.name for f in files if f.suffix.lower() == ".txt" and not f.is_dir())


def read(path: str | Path = HERE.config_file) -> Config:
    """Read and check a config file, with the project's fragments and texts.

    Errors: UserError if the file is missing, isn't YAML, or has a mistake.
    """
    project, mapping = Project.of(Path(path)), read_mapping(path)
    add_fragments(mapping, project)
    return load(mapping, find_texts(project), project)


def add_fragments(mapping: dict[Any, Any], project: Project = HERE) -> None:
    """Add the entries of resources/config/*.yaml to the mapping of a config file, in place.

    Errors: UserError for a file that isn't a fragment, and for a name that's in two files.
    """
    directory = project.fragments
    files = sorted(directory.glob("[!.]*.yaml")) if directory.is_dir() else ()
    merge_fragments(mapping, {path: read_mapping(path) for path in files})


def read_mapping(path: str | Path = HERE.config_file) -> dict[Any, Any]:
    """Read the mapping of a config file, without checking its settings.

    Errors: UserError if the file is missing, isn't YAML, or isn't a mapping, and for a duplicate
    key, of which YAML readers silently use the last value.
    """
    try:
        loader, node = _compose(Path(path).read_text(encoding="utf-8"))
        if node is None:
            return {}
        _check_keys(node, path)
        mapping = loader.construct_document(node)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this in the project's directory") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise UserError(f"{path}: not UTF-8 ({byte}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path}: {place}invalid YAML: {error.problem}") from None
    except yaml.YAMLError as error:  # a character that YAML doesn't allow
        raise UserError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: not a config file; its brackets are nested too deeply") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        message = f"{path}: invalid date: {error}; put it in quotes if you mean text"
        raise UserError(message) from None
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: should be a mapping at top level, with keys such as `runs:`")
    return mapping


def _compose(text: str) -> tuple[Any, Any]:
    """Return a YAML loader and the root of a text: libyaml's, ten times as fast, or PyYAML's own.

    For a text with a mistake, only the latter's messages are the same everywhere. A text that's
    nested deeply would end the process with libyaml.
    """
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with contextlib.suppress(yaml.YAMLError):
        if _depth(fast(text)) <= DEEPEST:
            loader = fast(text)
            return loader, loader.get_single_node()
    loader = yaml.SafeLoader(text)
    return loader, loader.get_single_node()


def _depth(loader: Any) -> int:
    """Return how many levels of mappings and lists a text has."""
    depth = deepest = 0
    while loader.check_event():
        event = loader.get_event()
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        deepest = max(deepest, depth)
    return deepest


# Levels of a config file that libyaml reads. Ours have six.
DEEPEST = 100


def _check_keys(root: yaml.Node, path: str | Path) -> None:
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if isinstance(node, yaml.ScalarNode):
            _check_number(node, path)
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            waiting.append(value)
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                is_section = isinstance(value, yaml.MappingNode)
                raise UserError(
                    f"{path}: line {line}: `{key.value}` is already in line {lines[name]}; "
                    f"{'merge the two' if is_section else 'remove one of them'}"
                )
            lines[name] = line


# Whole numbers that YAML 1.1 misreads: 010 is 8, and 1:30 is 90.
SURPRISING = re.compile(r"[-+]?(0[0-7_]*[1-7][0-7_]*|[0-9_]+(:[0-5]?[0-9])+)")


def _check_number(node: yaml.ScalarNode, path: str | Path) -> None:
    if node.tag == "tag:yaml.org,2002:int" and SURPRISING.fullmatch(node.value):
        value = yaml.safe_load(node.value)
        raise UserError(
            f"{path}: line {node.start_mark.line + 1}: YAML reads `{node.value}` as {value}; "
            f"write {value}, or put it in quotes"
        )


def load(mapping: Mapping[str, Any], texts: Iterable[str] = (), project: Project = HERE) -> Config:
    """Check the mapping of config.yaml and add a corpus and a dataset for each file of `texts`.

    Entries of config.yaml with a text's name change its corpus, its dataset or its run. Keys
    `x-...` are ignored, so they can define YAML anchors. In `runs` and `report.runs`, each sweep is
    replaced by its runs.

    Errors: UserError with one line about the first mistake.
    """
    try:
        kept = {name: value for name, value in mapping.items() if not str(name).startswith("x-")}
        texts = list(texts)
        config = Config.model_validate(_with_sources(kept, texts))
    except ValidationError as error:
        raise UserError(explain(error, Config)) from None
    config._root = project.root
    config = _add_texts(config, texts)
    _check_names(config)
    config = expand_ensembles(expand_sweeps(config))
    config = config.model_copy(update={"report": Report(runs=_report_runs(config))})
    for name in run_names(config):
        with contextlib.suppress(SourceError):  # reported when that run is needed
            resolve_run(config, name)
    _check_lengths(config)
    return config


def _with_sources(mapping: dict[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """Return the mapping with a text's file added to its corpus, if that has no source."""
    corpora = mapping.get("corpora")
    if not isinstance(corpora, dict):
        return mapping
    files = {Path(file).stem: f"{HERE.texts}/{file}" for file in texts}
    completed = {
        name: {**entry, "files": files[name]}
        if name in files and isinstance(entry, dict) and not SOURCES & entry.keys()
        else entry
        for name, entry in corpora.items()
    }
    return {**mapping, "corpora": completed}


def _add_texts(config: Config, texts: Iterable[str]) -> Config:
    """Return the config with a corpus and a dataset for each of the user's texts."""
    files: dict[str, str] = {}
    for file in texts:
        name, where = Path(file).stem, f"{HERE.texts}/{file}"
        if not NAME.fullmatch(name):
            raise UserError(f"{where}: invalid name `{name}`; rename the text: {NAME_RULE}")
        if RESERVED_RUN_NAMES.fullmatch(name):
            raise UserError(f"{where}: `{name}` is a reserved name; rename the text")
        if name in TOKENIZERS:
            raise UserError(f"{where}: `{name}` is the name of a tokenizer; rename the text")
        if name in files:
            raise UserError(f"{where}: same name as {files[name]}; rename one of them")
        dataset, run = config.datasets.get(name, Dataset()), config.runs.get(name)
        corpus = config.corpora.get(name)
        if (corpus and corpus.files != [where]) or dataset.corpus not in (None, name):
            raise UserError(
                f"{where}: config.yaml or {HERE.fragments} has another corpus or dataset `{name}`; "
                "rename the text, or remove that entry"
            )
        if run and (run.ensemble or run.dataset not in (None, name)):
            raise UserError(
                f"{where}: config.yaml has a run `{name}` on another dataset; rename the text"
            )
        files[name] = where
    corpora = {name: Corpus(files=[where]) for name, where in files.items()}
    corpora.update(config.corpora)  # these may set how a text is read
    datasets = {**{name: Dataset() for name in files}, **config.datasets}
    return config.model_copy(update={"corpora": corpora, "datasets": datasets})


def load_dataset(mapping: Mapping[str, Any], name: str) -> tuple[Corpus, Dataset]:
    """Return a dataset and its corpus, from parsed YAML and the user's texts."""
    return find_dataset(load(mapping, find_texts()), name)


def _check_names(config: Config) -> None:
    for kind in ("corpora", "datasets", "models", "runs"):
        for name in getattr(config, kind):
            if not NAME.fullmatch(name):
                raise UserError(f"{kind}: invalid name `{name}`; {NAME_RULE}")
    for kind in ("runs", "datasets"):
        for name in filter(RESERVED_RUN_NAMES.fullmatch, getattr(config, kind)):
            raise UserError(f"{kind}: `{name}` is a reserved name; rename the {kind[:-1]}")
    for name, dataset in config.datasets.items():
        if name in TOKENIZERS:
            raise UserError(f"datasets: `{name}` is the name of a tokenizer; rename the dataset")
        look_up(config.corpora, dataset.corpus or name, f"datasets.{name}.corpus", "corpus")
        _check_tokenizer(config, name)
    for name, run in config.runs.items():
        if "dataset" not in run.sweep and "ensemble" not in run.model_fields_set:
            look_up(config.datasets, run.dataset or name, f"runs.{name}.dataset", "dataset")


def _check_lengths(config: Config) -> None:
    """Raise UserError for a name that the file system or Snakemake wouldn't accept."""
    names = [("runs", run_names(config)), ("datasets", config.datasets)]
    for where, made in [*names, ("corpora", config.corpora)]:
        for name in made:
            _check_length(name, where, NAME_BYTES, "use a shorter one")
            _check_repetitions(name, where)
    for corpus, entry in config.corpora.items():
        for name in entry.downloads:
            remedy = "download it yourself under a shorter name, and list it under `files`"
            _check_length(name, f"corpora.{corpus}.url", NAME_BYTES - len(LONGEST_END), remedy)


def _check_length(name: str, where: str, most: int, remedy: str) -> None:
    length = len(os.fsencode(name))
    if length > most:
        raise UserError(
            f"{where}: the name `{name[:20]}...` is {length} bytes long, but {most} is the most; "
            f"{remedy}"
        )


def _check_repetitions(name: str, where: str) -> None:
    if name.count(name[-1]) >= REPETITIONS and REPETITIVE.search(name):
        raise UserError(
            f"{where}: the name `{shorten(name)}` ends in the same characters {REPETITIONS} times, "
            "which Snakemake refuses; use another name"
        )


def _report_runs(config: Config) -> list[str]:
    """Return the runs of the report, with sweeps replaced by their runs."""
    known = dict.fromkeys([*run_names(config), *config.sweep_of.values()])
    seen: set[str] = set()
    for name in config.report.runs:
        look_up(known, name, "report.runs", "run")
        if name in config.runs and config.runs[name].ensemble:
            raise UserError(
                f"report.runs: `{name}` is an ensemble, which has no curve; list its runs instead"
            )
        if name in seen:
            raise UserError(f"report.runs: `{name}` is listed twice; remove one")
        seen.add(name)
    runs = expand(config, config.report.runs)
    for run in runs:
        sweep = config.sweep_of.get(run)
        if run in seen and sweep in seen:
            raise UserError(
                f"report.runs: `{run}` is also a run of the sweep `{sweep}`; remove one of them"
            )
    return runs


def _check_tokenizer(config: Config, dataset: str) -> None:
    """Raise UserError if a dataset's tokenizer is unknown or depends on the dataset itself."""
    way = [dataset]
    while (tokenizer := config.datasets[way[-1]].tokenizer) not in TOKENIZERS:
        known = (*TOKENIZERS, *config.datasets)
        look_up(known, tokenizer, f"datasets.{way[-1]}.tokenizer", "tokenizer or dataset")
        way.append(tokenizer)
        if tokenizer in way[:-1]:
            raise UserError(
                f"datasets.{dataset}.tokenizer: circular reference: {' -> '.join(way)}; "
                f"set one of them to {', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]}"
            )
