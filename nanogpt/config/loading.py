"""From config.yaml to a checked `Config`: YAML, the user's own texts, names, sweeps."""

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
from nanogpt.errors import UserError
from nanogpt.files.atomic import NAME_BYTES
from nanogpt.project import HERE, Project

# Of a corpus; one of them says where its text is.
SOURCES = {"url", "files", "builtin"}

# Of what the workflow writes beside a download, the longest end of a name.
LONGEST_END = ".download.manifest.json"


def find_texts(project: Project = HERE) -> list[str]:
    """The files of the user's own texts in resources/texts/, sorted, without hidden ones."""
    files = project.texts.glob("[!.]*") if project.texts.is_dir() else ()
    return sorted(f.name for f in files if f.suffix.lower() == ".txt" and not f.is_dir())


def read(path: str | Path = HERE.config_file) -> Config:
    """Read and check a config file, with the project's fragments and texts.

    Errors: UserError for a file that is absent, no YAML or wrong.
    """
    project, mapping = Project.of(Path(path)), read_mapping(path)
    add_fragments(mapping, project)
    return load(mapping, find_texts(project), project)


def add_fragments(mapping: dict[Any, Any], project: Project = HERE) -> None:
    """Add the entries of resources/config/*.yaml to the mapping of a config file, in place.

    Errors: UserError for a file that isn't a fragment, and for a name that two files have.
    """
    directory = project.fragments
    files = sorted(directory.glob("[!.]*.yaml")) if directory.is_dir() else ()
    merge_fragments(mapping, {path: read_mapping(path) for path in files})


def read_mapping(path: str | Path = HERE.config_file) -> dict[Any, Any]:
    """What a config file says, its settings unchecked.

    Errors: UserError for a file that is absent, no YAML or no mapping, and for a key that a mapping
    has twice, of which YAML's readers silently take the last.
    """
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return {}
        _check_keys(node, path)
        mapping = loader.construct_document(node)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this in the project's directory") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise UserError(f"{path}: not UTF-8 ({byte}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path}: {place}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:  # a character that YAML has not
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: not a config file: nested too deeply") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: no date that there is: {error}; put it in quotes") from None
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: a mapping with `runs:` and the like is wanted at top level")
    return mapping


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
                raise UserError(
                    f"{path}: line {line}: `{key.value}` stands in line {lines[name]} already; "
                    "put both into one"
                )
            lines[name] = line


# Whole numbers that YAML 1.1 reads as others than they look: 010 is 8, and 1:30 is 90.
SURPRISING = re.compile(r"[-+]?(0[0-7_]*[1-7][0-7_]*|[0-9_]+(:[0-5]?[0-9])+)")


def _check_number(node: yaml.ScalarNode, path: str | Path) -> None:
    if node.tag == "tag:yaml.org,2002:int" and SURPRISING.fullmatch(node.value):
        value = yaml.safe_load(node.value)
        raise UserError(
            f"{path}: line {node.start_mark.line + 1}: YAML reads `{node.value}` as {value}; "
            f"write {value}, or put it in quotes"
        )


def load(mapping: Mapping[str, Any], texts: Iterable[str] = (), project: Project = HERE) -> Config:
    """Check the mapping of config.yaml; each file of `texts` becomes a corpus and a dataset.

    config.yaml may say more of such a dataset, or of a run on it, by entries of the text's name.
    Keys `x-...` are ignored; they can hold YAML's anchors. In `runs` and `report.runs`, a sweep is
    replaced by its runs.

    Errors: UserError with one line that names the first thing that is wrong.
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
    for name in run_names(config):
        with contextlib.suppress(SourceError):  # reported to those who need that run
            resolve_run(config, name)
    _check_lengths(config)
    return config.model_copy(update={"report": Report(runs=_report_runs(config))})


def _with_sources(mapping: dict[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """The mapping with the file of a user's text in a corpus of its name that has no source."""
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
    """The config with a corpus and a dataset for each text of the user's."""
    files: dict[str, str] = {}
    for file in texts:
        name, where = Path(file).stem, f"{HERE.texts}/{file}"
        if not NAME.fullmatch(name):
            raise UserError(f"{where}: `{name}` is no name; {NAME_RULE}; rename the text")
        if RESERVED_RUN_NAMES.fullmatch(name):
            raise UserError(f"{where}: `{name}` is a reserved name; rename the text")
        if name in TOKENIZERS:
            raise UserError(f"{where}: `{name}` is a tokenizer; rename the text")
        if name in files:
            raise UserError(f"{where}: {files[name]} has the same name; rename one of them")
        dataset, run = config.datasets.get(name, Dataset()), config.runs.get(name)
        corpus = config.corpora.get(name)
        if (corpus and corpus.files != [where]) or dataset.corpus not in (None, name):
            raise UserError(
                f"{where}: `{name}` is another corpus or dataset, by config.yaml or "
                f"{HERE.fragments}; rename the text, or remove that entry"
            )
        if run and (run.ensemble or run.dataset not in (None, name)):
            raise UserError(
                f"{where}: config.yaml has a run `{name}` on another dataset; rename the text"
            )
        files[name] = where
    corpora = {name: Corpus(files=[where]) for name, where in files.items()}
    corpora.update(config.corpora)  # which may say how a text is read
    datasets = {**{name: Dataset() for name in files}, **config.datasets}
    return config.model_copy(update={"corpora": corpora, "datasets": datasets})


def load_dataset(mapping: Mapping[str, Any], name: str) -> tuple[Corpus, Dataset]:
    """What a dataset is made of and how, by parsed YAML and the texts that are there."""
    return find_dataset(load(mapping, find_texts()), name)


def _check_names(config: Config) -> None:
    for kind in ("corpora", "datasets", "models", "runs"):
        for name in getattr(config, kind):
            if not NAME.fullmatch(name):
                raise UserError(f"{kind}: `{name}` is no name; {NAME_RULE}")
    for kind in ("runs", "datasets"):
        for name in filter(RESERVED_RUN_NAMES.fullmatch, getattr(config, kind)):
            raise UserError(
                f"{kind}: `{name}` is a reserved name; call the {kind[:-1]} something else"
            )
    for name, dataset in config.datasets.items():
        if name in TOKENIZERS:
            raise UserError(f"datasets: `{name}` is a tokenizer; call the dataset something else")
        look_up(config.corpora, dataset.corpus or name, f"datasets.{name}.corpus", "corpus")
        _check_tokenizer(config, name)
    for name, run in config.runs.items():
        if "dataset" not in run.sweep and "ensemble" not in run.model_fields_set:
            look_up(config.datasets, run.dataset or name, f"runs.{name}.dataset", "dataset")


def _check_lengths(config: Config) -> None:
    """UserError for a name that makes a longer file name than a file system takes."""
    names = [("runs", run_names(config)), ("datasets", config.datasets)]
    for where, made in [*names, ("corpora", config.corpora)]:
        for name in made:
            _check_length(name, where, NAME_BYTES)
    for corpus, entry in config.corpora.items():
        for name in entry.downloads:
            _check_length(name, f"corpora.{corpus}.url", NAME_BYTES - len(LONGEST_END))


def _check_length(name: str, where: str, most: int) -> None:
    length = len(os.fsencode(name))
    if length > most:
        raise UserError(
            f"{where}: a name of {length} bytes, `{name[:20]}...`; a file name here can have {most}"
        )


def _report_runs(config: Config) -> list[str]:
    """The runs of the report, each once."""
    known = dict.fromkeys([*run_names(config), *config.sweep_of.values()])
    seen: set[str] = set()
    for name in config.report.runs:
        look_up(known, name, "report.runs", "run")
        if name in config.runs and config.runs[name].ensemble:
            raise UserError(
                f"report.runs: `{name}` is an ensemble, which has no curve; name its runs instead"
            )
        if name in seen:
            raise UserError(f"report.runs: `{name}` stands there twice; name it once")
        seen.add(name)
    runs = expand(config, config.report.runs)
    for run in runs:
        sweep = config.sweep_of.get(run)
        if run in seen and sweep in seen:
            raise UserError(
                f"report.runs: `{run}` stands there twice, as a run of `{sweep}` too; name it once"
            )
    return runs


def _check_tokenizer(config: Config, dataset: str) -> None:
    """UserError if a dataset's tokenizer is of no kind and no dataset's, or at last its own."""
    way = [dataset]
    while (tokenizer := config.datasets[way[-1]].tokenizer) not in TOKENIZERS:
        known = (*TOKENIZERS, *config.datasets)
        look_up(known, tokenizer, f"datasets.{way[-1]}.tokenizer", "tokenizer or dataset")
        way.append(tokenizer)
        if tokenizer in way[:-1]:
            raise UserError(
                f"datasets.{dataset}.tokenizer: a circle: {' -> '.join(way)}; "
                f"give one of them {', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]}"
            )
