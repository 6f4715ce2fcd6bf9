"""The settings, inputs and outputs of each stage of the workflow, for the current config.yaml.

The rules in workflow/rules/ define how Snakemake starts a stage. This module has the same
information without Snakemake, so that `nanogpt why` can compare it with the manifest of a result.
`tests/workflow/test_why.py` checks that both agree. Longer computations are only here, and
workflow/rules/common.smk calls them.
"""

import hashlib
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from nanogpt.config.corpora import TOKENIZERS
from nanogpt.config.initial import GPT2_SIZES, NO_ENTRY, find_source, find_tokenizer
from nanogpt.config.messages import look_up
from nanogpt.config.parameters import as_parameters
from nanogpt.config.resolving import (
    BENCHED,
    bench_runs,
    check_ngrams,
    check_trains,
    corpus_of,
    dataset_of,
    entries_of,
    resolve_run,
    run_names,
    run_parameters,
)
from nanogpt.config.schema import Config
from nanogpt.data.sources import find_files
from nanogpt.errors import UserError
from nanogpt.project import HERE, NGRAMS_FILE, Project

MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")
MODEL = tuple(f"model/{file}" for file in MODEL_FILES)
TOKEN_FILES = ("train.bin", "val.bin")
DATASET = ("tokenizer.json", "meta.json")
DESCRIPTION = ("eval.json", "eval.manifest.json", "train.manifest.json")  # for the model card
NGRAMS = f"model/{NGRAMS_FILE}"
GPT2_MERGES = "resources/tokenizers/gpt2/vocab.bpe"

# The outputs of each stage of a run in results/<run>/, in order.
OF_RUN: dict[str, tuple[str, ...]] = {
    "train": (*MODEL, "metrics.jsonl"),
    "combine": MODEL,
    "count_ngrams": (NGRAMS,),
    "eval": ("eval.json",),
    "sample": ("samples.txt", "samples.jsonl"),
    "bench": ("bench.json",),
    "tensorboard": ("tensorboard/events.out.tfevents.metrics",),
    "export_huggingface": (
        *(f"export/huggingface/{name}" for name in ("model.safetensors", "config.json")),
        *(f"export/huggingface/{name}" for name in ("generation_config.json", "tokenizer.json")),
        *(f"export/huggingface/{name}" for name in ("tokenizer_config.json", "README.md")),
        "export/huggingface/export.json",
    ),
    "export_gguf": ("export/gguf/{run}.gguf", "export/gguf/export.json"),
    "export_nanogpt": ("export/nanogpt/ckpt.pt", "export/nanogpt/export.json"),
}
EXPORTS = tuple(stage for stage in OF_RUN if stage.startswith("export_"))
CHARTS = (
    *(f"loss_{axis}" for axis in ("tokens", "steps", "seconds", "flops")),
    *("scaling", "speed", "position", "calibration"),
)
OF_REPORT = ("index.html", "report.md", "runs.csv", "columns.csv", *(f"{c}.svg" for c in CHARTS))

# The groups of a run's settings that a stage gets, and its name or dataset.
GROUPS: dict[str, tuple[str, ...]] = {
    "train": ("model", "train"),
    "combine": (),
    "count_ngrams": ("ngram",),
    "eval": ("name", "dataset", "eval"),
    "sample": ("name", "sample"),
    "tensorboard": (),
    **dict.fromkeys(EXPORTS, ("name",)),
}

# The state of files that aren't the user's own.
MADE_HERE = "made by the workflow"

# Bytes of a corpus of several local files from which on `shards: auto` writes shards.
SHARDED_FROM = 1 << 34

# Settings of a corpus for the source of its text. The others affect how it's read.
NOT_READING = {"url", "sha256", "files", "n_characters", "seed"}


@dataclass(frozen=True)
class StageJob:
    """A stage of one run, dataset or corpus, such as `train one`.

    directory: the directory of its outputs. outputs: their paths. manifest: its path.
    """

    stage: str
    name: str
    directory: str
    outputs: tuple[str, ...]
    manifest: str

    def __str__(self) -> str:
        return f"{self.stage} {self.name}"


def _make_job(stage: str, name: str, directory: str, outputs: tuple[str, ...]) -> StageJob:
    paths = tuple(f"{directory}/{output.replace('{run}', name)}" for output in outputs)
    return StageJob(stage, name, directory, paths, f"{directory}/{stage}.manifest.json")


def jobs_of_run(config: Config, run: str) -> list[StageJob]:
    """Return all jobs of a run, in order."""
    resolved = resolve_run(config, run)
    of_models = {"train", "bench", "tensorboard", *EXPORTS}
    left_out = of_models if resolved.ensemble else {"combine"}
    left_out |= set() if resolved.ngram else {"count_ngrams"}
    return [
        _make_job(stage, run, f"results/{run}", outputs)
        for stage, outputs in OF_RUN.items()
        if stage not in left_out
    ]


def jobs_of_dataset(dataset: str, sharded: Container[str]) -> list[StageJob]:
    """Return all jobs of a dataset, in order."""
    directory = f"results/datasets/{dataset}"
    return [
        _make_job("prepare", dataset, directory, files_of_dataset(dataset, sharded)),
        _make_job("ngram", dataset, directory, ("ngram.json",)),
    ]


def jobs_of_corpus(config: Config, corpus: str) -> list[StageJob]:
    """Return the jobs that download or write a corpus; none for the user's own files."""
    entry, directory = config.corpora[corpus], f"resources/corpora/{corpus}"
    if entry.builtin:
        return [_make_job("write_builtin", corpus, directory, ("input.txt",))]
    return [
        StageJob(
            "download",
            f"{corpus}/{file}",
            directory,
            (f"{directory}/{file}",),
            f"{directory}/{file}.download.manifest.json",
        )
        for file in entry.downloads
    ]


def find_jobs(config: Config) -> Iterator[StageJob]:
    """Yield every possible job of a config, except those of its datasets."""
    for corpus in config.corpora:
        yield from jobs_of_corpus(config, corpus)
    yield _make_job("download_gpt2", "gpt2", "resources/tokenizers/gpt2", ("vocab.bpe",))
    for model in imported_models(config):
        yield _make_job("import_model", model, f"resources/imported/{model}", MODEL_FILES)
    for run in run_names(config):
        yield from jobs_of_run(config, run)
    yield _make_job("bench_report", "report", "results/report", OF_REPORT)


# --- Inputs ----------------------------------------------------------------------------------


def inputs_of(
    config: Config, job: StageJob, sharded: Container[str], project: Project = HERE
) -> list[str]:
    """Return the inputs of a job, without temporary files, in the rule's order.

    Errors: UserError for a corpus without files.
    """
    if job.stage == "prepare":
        return [*corpus_files(config, job.name, project), *given_tokenizer(config, job.name)]
    if job.stage == "ngram":
        files = files_of_dataset(job.name, sharded)
        return [f"{job.directory}/{file}" for file in files]
    if job.stage == "bench_report":
        return _list_report_inputs(config)
    if job.stage == "import_model":
        return imported_files(imported_models(config)[job.name], project)
    if job.stage in OF_RUN:
        return _list_run_inputs(config, job, sharded)
    return []


def _list_run_inputs(config: Config, job: StageJob, sharded: Container[str]) -> list[str]:
    run = resolve_run(config, job.name)
    files = files_of_dataset(run.dataset, sharded)
    dataset = [f"results/datasets/{run.dataset}/{file}" for file in files]
    model = [f"{job.directory}/{file}" for file in MODEL]
    ngrams = [f"{job.directory}/{NGRAMS}"] if run.ngram else []
    prompt = [run.sample.prompt_file] if run.sample.prompt_file else []
    described = [f"{job.directory}/{file}" for file in DESCRIPTION]
    return {
        "train": [*dataset, *initial_model(config, run.name)],
        "bench": dataset,
        "count_ngrams": dataset,
        "combine": [f"results/{member}/{file}" for file in MODEL for member in run.ensemble],
        "eval": [*dataset, *model, *ngrams],
        "sample": [*model, *prompt, *ngrams],
        "tensorboard": [f"{job.directory}/metrics.jsonl"],
        "export_huggingface": [*model, *described],
        "export_gguf": model,
        "export_nanogpt": model,
    }[job.stage]


def _list_report_inputs(config: Config) -> list[str]:
    runs = config.report.runs
    of_each = ["metrics.jsonl", "eval.json", "samples.txt", OF_RUN["tensorboard"][0]]
    of_each += [f"{stage}.manifest.json" for stage in ("train", "eval", "sample")]
    benched = sorted(set(bench_runs(config, runs).values()))
    datasets = sorted({resolve_run(config, run).dataset for run in runs})
    return [
        *(f"results/{run}/{file}" for file in of_each for run in runs),
        *(f"results/{run}/bench.json" for run in benched),
        *(f"results/datasets/{dataset}/ngram.json" for dataset in datasets),
    ]


def corpus_files(config: Config, dataset: str, project: Project = HERE) -> list[str]:
    """Return the files of a dataset's corpus, in order.

    Errors: UserError for an unknown dataset, and a corpus without files.
    """
    look_up(config.datasets, dataset, "datasets", "dataset")
    name = corpus_of(config, dataset)
    files = find_files(name, config.corpora[name], project)
    root = project.root
    return [str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files]


class ShardedDatasets(Container[str]):
    """The datasets whose token files are shards; see `shards` in SETTINGS.md.

    A corpus is looked at when its dataset is asked for: it can be a directory with a million files.
    """

    def __init__(self, config: Config, project: Project = HERE) -> None:
        self._config, self._project = config, project
        self._known: dict[object, bool] = {}

    def __contains__(self, name: object) -> bool:
        if name not in self._known:
            self._known[name] = name in self._config.datasets and self._is_sharded(str(name))
        return self._known[name]

    def _is_sharded(self, name: str) -> bool:
        shards, corpus_name = self._config.datasets[name].shards, corpus_of(self._config, name)
        corpus = self._config.corpora[corpus_name]
        if shards == "never" or (shards == "auto" and not corpus.files):
            return False
        try:
            files = find_files(corpus_name, corpus, self._project)
            if len(files) == 1:
                return False
            return shards == "always" or sum(f.stat().st_size for f in files) >= SHARDED_FROM
        except (UserError, OSError):  # reported by what reads the corpus
            return False


def files_of_dataset(name: str, sharded: Container[str]) -> tuple[str, ...]:
    """Return the names of a dataset's files, in order.

    Shards aren't among them, so that a run doesn't have hundreds of inputs. meta.json, which has
    their digests, stands for them.
    """
    return DATASET if name in sharded else (*TOKEN_FILES, *DATASET)


def given_tokenizer(config: Config, dataset: str) -> list[str]:
    """Return the tokenizer file that a dataset uses from elsewhere, in a list, or none."""
    tokenizer = config.datasets[dataset].tokenizer
    if tokenizer == "gpt2":
        return [GPT2_MERGES]
    return [] if tokenizer in TOKENIZERS else [f"results/datasets/{tokenizer}/tokenizer.json"]


def imported_models(config: Config) -> dict[str, str]:
    """Return other programs' models that runs start from, by the names of their directories.

    Errors: as for `find_source`.
    """
    sources = [find_source(config, run) for run in run_names(config)]
    return {s.directory.name: s.name for s in sources if s and s.is_imported}


def imported_files(source: str, project: Project = HERE) -> list[str]:
    """Return the files that another program's model is read from."""
    if source in GPT2_SIZES:
        return [GPT2_MERGES]
    directory = project.root / source
    files = [*directory.glob("*.safetensors"), *directory.glob("*.json")]
    return sorted(str(Path(source) / file.name) for file in files)


def initial_model(config: Config, run: str) -> list[str]:
    """Return the files of a run's initial model; none with random weights."""
    source = find_source(config, run)
    return [str(source.directory / name) for name in MODEL_FILES] if source else []


# --- Settings --------------------------------------------------------------------------------


def milestones(config: Config) -> dict[tuple[int, ...], list[str]]:
    """Return the runs that keep milestones, by steps. This reads no files."""
    runs: dict[tuple[int, ...], list[str]] = {}
    for name in run_names(config):
        given: list[int] = []
        for _, entry in entries_of(config, name):
            if "milestones" in entry.train.model_fields_set:
                given = entry.train.milestones
        if given and not config.runs.get(name, NO_ENTRY).ensemble:
            runs.setdefault(tuple(sorted(set(given))), []).append(name)
    return runs


def runs_with_characters(config: Config) -> list[str]:
    """Return the runs whose tokens are characters."""
    datasets = {name: dataset_of(config, name) for name in run_names(config)}
    return [
        name
        for name, dataset in datasets.items()
        if dataset in config.datasets and find_tokenizer(config, dataset)[0] == "char"
    ]


def settings_of(config: Config, job: StageJob, sharded: Container[str]) -> dict[str, JsonValue]:
    """Return the settings that a job gets as parameters."""
    if job.stage == "prepare":
        return dataset_settings(config, job.name, sharded)
    if job.stage == "ngram":
        return {"name": job.name}
    if job.stage == "write_builtin":
        return {"corpus": builtin_settings(config, job.name)}
    if job.stage == "download":
        corpus, _, file = job.name.partition("/")
        return {"url": config.corpora[corpus].downloads[file]}
    if job.stage == "bench_report":
        return {"runs": list(config.report.runs)}
    if job.stage == "import_model":
        return {"source": imported_models(config)[job.name]}
    if job.stage == "bench":
        return bench_settings(config, job.name)
    if job.stage == "count_ngrams":
        return ngram_settings(config, job.name)
    groups = GROUPS.get(job.stage, ())
    return run_parameters(resolve_run(config, job.name), groups) if groups else {}


def builtin_settings(config: Config, corpus: str) -> dict[str, JsonValue]:
    """Return the settings that a built-in corpus depends on."""
    return as_parameters(config.corpora[corpus], {"builtin", "n_characters", "seed"})


def dataset_settings(config: Config, name: str, sharded: Container[str]) -> dict[str, JsonValue]:
    """Return the settings that a dataset's files depend on.

    Instead of the setting `shards`, they have `sharded: true` for a dataset with shards, because
    `auto` can mean either.
    """
    dataset = config.datasets[name]
    corpus = config.corpora[corpus_of(config, name)]
    unused = {"shards"} if dataset.tokenizer == "bpe" else {"shards", "vocab_size"}
    settings = as_parameters(dataset, set(type(dataset).model_fields) - unused)
    return {
        "corpus": as_parameters(corpus, set(type(corpus).model_fields) - NOT_READING),
        "dataset": settings | ({"sharded": True} if name in sharded else {}),
    }


def ngram_settings(config: Config, run: str) -> dict[str, JsonValue]:
    """Return the settings of a run's n-grams.

    Errors: UserError if the run doesn't use n-grams.
    """
    resolved = resolve_run(config, run)
    check_ngrams(resolved)
    return run_parameters(resolved, ["ngram"])


def bench_settings(config: Config, run: str) -> dict[str, JsonValue]:
    """Return the settings that a benchmark depends on.

    Errors: UserError for an ensemble.
    """
    resolved = resolve_run(config, run)
    check_trains(resolved)
    groups = ("name", "dataset", "model", "bench", *BENCHED)
    measured = {group: set(names) for group, names in BENCHED.items()}
    return run_parameters(resolved, groups, measured)


# --- States of files, which also make a job run again -----------------------------------------


def corpus_state(config: Config, dataset: str, project: Project = HERE) -> str:
    """Hash the sizes and mtimes of a dataset's local files, so that any replaced file counts."""
    files = corpus_files(config, dataset, project)
    if not config.corpora[corpus_of(config, dataset)].files:
        return MADE_HERE
    return _describe_state(files, project)


def imported_state(source: str, project: Project = HERE) -> str:
    """Hash the sizes and mtimes of another program's model files."""
    if source in GPT2_SIZES:
        return MADE_HERE
    return _describe_state(imported_files(source, project), project)


def initial_state(config: Config, run: str, project: Project = HERE) -> str:
    """Hash the sizes and mtimes of a run's initial model, if it's the user's own."""
    source = find_source(config, run)
    if not source or source.run or source.is_imported:
        return MADE_HERE
    files = initial_model(config, run)
    return _describe_state([f for f in files if (project.root / f).is_file()], project)


def _describe_state(files: list[str], project: Project) -> str:
    stats = [(project.root / file).stat() for file in files]
    states = [(str(f), s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True)]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def wanted_digest(config: Config, corpus: str, file: str, project: Project = HERE) -> str:
    """Return the sha256 that config.yaml requires for a download, unless the file has it already.

    That way, adding the digest of an existing file doesn't download it again.
    """
    wanted = config.corpora[corpus].digest_of(file)
    manifest = project.corpora / corpus / f"{file}.download.manifest.json"
    if wanted is None or not manifest.exists():
        return "as it is"
    # Imported late, since most dry runs read no records.
    from nanogpt.artifacts.records.base import read_record
    from nanogpt.artifacts.records.manifests import Manifest

    try:
        digests = read_record(manifest, Manifest).outputs.values()
    except UserError:  # damaged
        return wanted
    return "as it is" if wanted in digests else wanted


def params_of(
    config: Config,
    job: StageJob,
    code: str | None,
    sharded: Container[str],
    project: Project = HERE,
) -> set[str]:
    """Return a job's params as Snakemake records them, as far as they are known without it.

    code: the digest of its code; None if it isn't known.
    """
    settings = settings_of(config, job, sharded)
    params = {repr(json.dumps(settings) if job.stage == "train" else settings)}
    if code is not None:
        params.add(repr(code))
    if job.stage == "prepare":
        params.add(repr(corpus_state(config, job.name, project)))
    if job.stage == "train":
        params.add(repr(initial_state(config, job.name, project)))
    if job.stage == "import_model":
        params.add(repr(imported_state(imported_models(config)[job.name], project)))
    if job.stage == "download":
        corpus, _, file = job.name.partition("/")
        params.add(repr(wanted_digest(config, corpus, file, project)))
    return params
