"""Settings: the one place where a setting's name, type, range, default, unit and meaning stand.

`load` turns the mapping of config.yaml into a checked, frozen `Config`; `resolve_run` says what a
run comes to once built-in defaults, `defaults`, presets, the run's entry and the command line are
laid over one another. A run with a `sweep` stands for many, which `load` puts in its place.
Messages, the JSON schema and the table of settings come from the same models. What the settings do
is left to the modules that read them.
"""

import contextlib
import difflib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from encodings.aliases import aliases
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

TEXTS = Path("resources/texts")

# More names than this are not listed where none is near.
MANY_NAMES = 20

# Characters of a wrong value that a message shows.
LONGEST_SHOWN = 80

# Runs of a sweep that a message shows.
RUNS_SHOWN = 3

# Bytes of the name of a sweep's run. File systems allow 255, of which temporary names need some.
LONGEST_NAME = 200

# A name becomes a file name, so it must not be able to leave its directory.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_RULE = (
    "letters, digits, dot, dash and underscore make a name that begins with a letter or digit"
)
RESERVED_RUN_NAMES = re.compile(r"datasets|report|gpt2.*")


class UserError(ValueError):
    """A mistake of the user's, told in one line that names it and says what to do."""

    def __init__(self, message: str) -> None:
        # A name that is quoted in it may hold a line break.
        super().__init__(message.replace("\n", "\\n"))


def counted(number: int, noun: str) -> str:
    """`1 token`, `2,000 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


NUMBERS = {int, float, int | None}


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        # pydantic would read `n_layer: yes` as 1.
        raise ValueError("a number is wanted here, not yes or no")
    return value


def _whole_number(value: Any) -> Any:
    if isinstance(value, str):
        # pydantic takes "2000" and 2e3, but not "2e3".
        with contextlib.suppress(ValueError):
            number = float(value)
            return int(number) if "e" in value and number.is_integer() else value
    return _number(value)


class Settings(BaseModel):
    """What all groups of settings share: frozen, no unknown keys, numbers may stand in strings.

    YAML reads `1e-3` as a string, and Snakemake's `--config 'train={lr: 0.5}'` gives '0.5'.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: Any) -> Any:
        annotation = cls.model_fields[info.field_name].annotation
        if annotation in NUMBERS - {float}:
            return _whole_number(value)
        return _number(value) if annotation is float else value


class ModelSettings(Settings):
    """Architecture: GPT-2's, as small or as large as these say."""

    n_layer: int = Field(6, ge=1, description="transformer blocks")
    n_head: int = Field(6, ge=1, description="attention heads of a block; must divide n_embd")
    n_embd: int = Field(384, ge=1, description="width of the residual stream")
    block_size: int = Field(256, ge=1, description="context length, in tokens")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout probability while training")
    bias: bool = Field(False, description="biases in linear layers and norms, as in GPT-2")
    position: Literal["learned", "rotary"] = Field(
        "learned",
        description="learned: a vector a position, as in GPT-2; rotary: RoPE, learns sooner",
    )
    activation: Literal["gelu", "gelu_tanh"] = Field(
        "gelu", description="gelu: exact, as in nanoGPT; gelu_tanh: GPT-2's approximation, slower"
    )


class ModelChoice(ModelSettings):
    """A preset of `models`, settings of its own, or a preset with some settings changed."""

    preset: str | None = Field(None, description="name of an entry of `models`")


def _preset_by_name(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value or {}


def empty_allowed(model: Any) -> BeforeValidator:
    """Lets `name:` with nothing after it stand for an entry without settings."""
    return BeforeValidator(lambda value: {} if value is None else value, model | None)


# `model: small` is short for `model: {preset: small}`.
Model = Annotated[
    ModelChoice, BeforeValidator(_preset_by_name, json_schema_input_type=str | ModelChoice | None)
]

DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"
SHA256 = r"^[0-9a-f]{64}$"
# What they match, in words.
PATTERNS = {DEVICE: "auto, cpu, mps, cuda or cuda:N", SHA256: "64 hex digits in lower case"}

Device = Annotated[str, Field(pattern=DEVICE)]
# Below 2^63, so that seed + the number of a sample is a seed as well.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Dtype = Literal["auto", "float32", "bfloat16"]


class TrainSettings(Settings):
    """Training. The names are nanoGPT's."""

    max_iters: int = Field(5000, ge=1, description="optimizer steps")
    batch_size: int = Field(64, ge=1, description="windows of block_size tokens in a micro-batch")
    gradient_accumulation_steps: int = Field(
        1,
        ge=1,
        description="micro-batches summed into one step; more memory-friendly than batch_size",
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    decay_lr: bool = Field(
        True, description="warm-up and cosine decay; off: learning_rate throughout"
    )
    warmup_iters: int = Field(100, ge=0, description="steps of linear warm-up")
    lr_decay_iters: int | None = Field(
        None, ge=1, description="step at which min_lr is reached; none: max_iters"
    )
    min_lr: float = Field(1e-4, ge=0, description="learning rate at the end of the decay")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decay, of matrices only")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first-moment decay")
    beta2: float = Field(0.99, ge=0, lt=1, description="AdamW's second-moment decay")
    grad_clip: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")
    eval_interval: int = Field(250, ge=1, description="steps between evaluations while training")
    eval_iters: int = Field(
        200, ge=1, description="batches of each split in such an evaluation, always the same ones"
    )
    log_interval: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    keep: Literal["best", "last"] = Field(
        "best", description="weights that are kept: of the best validation loss, or the last"
    )
    milestones: list[Annotated[int, Field(ge=1), BeforeValidator(_whole_number)]] = Field(
        [], description="steps whose weights are kept too, in results/<run>/milestones/<step>/"
    )
    seed: Seed = Field(1337, description="seed of the initial weights, batches and dropout")
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Dtype = Field("auto", description="auto, float32 or bfloat16 (autocast)")
    compile: bool = Field(False, description="torch.compile; on a CPU it needs a C++ compiler")
    deterministic: bool = Field(False, description="deterministic CUDA kernels, slower")


class EvalSettings(Settings):
    """Evaluation of the finished model on whole splits."""

    batch_size: int = Field(32, ge=1, description="windows in a forward pass")
    eval_iters: int = Field(200, ge=1, description="random batches of nanoGPT's estimate")
    seed: Seed = Field(1337, description="seed of nanoGPT's estimate")
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    # Not auto: losses and samples of different machines shall compare.
    dtype: Dtype = Field("float32", description="float32, bfloat16 (autocast) or auto")


class SampleSettings(Settings):
    """Sampling from the finished model."""

    start: str = Field("\n", min_length=1, description="prompt, or FILE:path of a UTF-8 file")
    num_samples: int = Field(5, ge=1, description="samples to draw")
    max_new_tokens: int = Field(500, ge=1, description="tokens of each sample, prompt not counted")
    temperature: float = Field(0.8, ge=1e-6, description="below 1 more cautious, above more random")
    top_k: int = Field(200, ge=0, description="choose among this many likeliest tokens; 0: all")
    seed: Seed = Field(1337, description="seed of the draws")
    unknown: Literal["error", "skip"] = Field(
        "error", description="what a prompt's character that the vocabulary lacks gets"
    )
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    # Not auto: losses and samples of different machines shall compare.
    dtype: Dtype = Field("float32", description="float32, bfloat16 (autocast) or auto")


class BenchSettings(Settings):
    """The benchmark of training and sampling. The defaults are those of nanoGPT's bench.py."""

    batch_size: int | None = Field(None, ge=1, description="windows in a step; none: train's")
    data: Literal["real", "random"] = Field(
        "real", description="windows of the dataset, or random token ids"
    )
    burn_in: int = Field(10, ge=0, description="steps before timing starts")
    steps: int = Field(20, ge=1, description="timed steps")
    seed: Seed = Field(1337, description="seed of the initial weights, batches and dropout")


def _one_makes_a_list(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


# `files: novel.txt` is short for `files: [novel.txt]`.
OneOrMore = BeforeValidator(_one_makes_a_list, json_schema_input_type=str | list[str] | None)

# curl's notation for numbered URLs: part-[00-79].parquet
URL_RANGE = re.compile(r"\[(\d+)-(\d+)\]")


class Corpus(Settings):
    """Raw text: exactly one of `url`, `files` or `builtin`."""

    url: Annotated[list[str], OneOrMore] = Field(
        [], description="where to download it: one, a list, or a numbered range such as `[00-79]`"
    )
    sha256: str | None = Field(
        None,
        pattern=SHA256,
        description="digest of the download, of a single file; none: the first one's is recorded",
    )
    files: Annotated[list[Annotated[str, Field(min_length=1)]], OneOrMore] = Field(
        [], description="local files, directories or patterns such as `texts/**/*.txt`, one or more"
    )
    builtin: Literal["playwright"] | None = Field(None, description="a generator of ours")
    n_characters: int = Field(
        1_000_000, ge=1, description="length of a built-in corpus, characters"
    )
    seed: Seed = Field(1337, description="seed of a built-in corpus")
    encoding: str = Field(
        "auto", description="a name that Python knows, or auto: UTF-8, else the likeliest"
    )
    errors: Literal["strict", "replace"] = Field(
        "strict", description="what bytes that do not fit the encoding get: an error, or U+FFFD"
    )
    newlines: Literal["keep", "lf"] = Field(
        "keep", description="lf: CRLF and CR become a line feed; keep: they stay"
    )
    text_column: str = Field(
        "text", description="what holds the text: a field of .jsonl, a column of .parquet and .csv"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Corpus":
        if sum(map(bool, (self.url, self.files, self.builtin))) != 1:
            raise ValueError("a corpus has exactly one of url, files and builtin")
        if self.sha256 and len(self.urls) + len(self.files) > 1:
            raise ValueError("a sha256 is of one file, and these are several; leave it out")
        if len({_last_part(url) for url in self.urls}) < len(self.urls):
            raise ValueError("two of its URLs end in the same name of a file; one would be lost")
        return self

    @field_validator("url")
    @classmethod
    def _is_of_a_file(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not re.fullmatch(r"https?://[^/?#\s]+/\S+", url):
                raise ValueError(f"`{url}` is no URL of a file; http(s)://host/path is wanted")
            if any(int(low) > int(high) for low, high in URL_RANGE.findall(url)):
                raise ValueError(f"`{url}`: a range begins with its lowest number")
            if not all(NAME.fullmatch(_last_part(one)) for one in expand_url(url)):
                raise ValueError("a URL that ends in the name of a file is wanted")
        return urls

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            if encoding != "auto":
                "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError(
                f"`{encoding}` is no encoding that Python knows"
                f"{_did_you_mean(encoding.lower(), sorted(set(aliases.values())), none='')}"
            ) from None
        return encoding

    @property
    def urls(self) -> list[str]:
        """All its URLs, ranges written out."""
        return [one for url in self.url for one in expand_url(url)]

    @property
    def downloads(self) -> dict[str, str]:
        """Its URLs by the names that the files get in resources/corpora/<corpus>/."""
        return {_last_part(url): url for url in self.urls}


def expand_url(url: str) -> list[str]:
    """A URL with numbered ranges, curl's `[00-79]`, written out; leading zeros stay."""
    found = URL_RANGE.search(url)
    if not found:
        return [url]
    low, high = found.groups()
    numbers = [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
    rest = expand_url(url[found.end() :])
    return [url[: found.start()] + number + tail for number in numbers for tail in rest]


def _last_part(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


TOKENIZERS = ("char", "bpe", "gpt2", "byte")


class Dataset(Settings):
    """A corpus, a tokenizer and a split."""

    corpus: str | None = Field(None, description="name of a corpus; none: the dataset's own name")
    tokenizer: str = Field(
        "char",
        description="char: one token a character; bpe: byte pairs, trained on the training split; "
        "gpt2: GPT-2's; byte: 256 symbols; or the name of a dataset, whose tokenizer is taken",
    )
    vocab_size: int = Field(
        1024, ge=257, description="tokens of `bpe`: 256 bytes, joined pairs, and the end of a text"
    )
    val_ratio: float = Field(0.1, gt=0, lt=1, description="share held out for validation")
    split: Literal["auto", "position", "document"] = Field(
        "auto",
        description="position: the end of the text is held out; document: documents are, chosen "
        "by a hash of each; auto: document from 100 documents on",
    )
    separator: str = Field(
        "\n",
        description="what stands after each of several documents, for `char` and `byte`; "
        "byte pairs have a token for it",
    )


class RunDefaults(Settings):
    """What all runs share unless they say otherwise."""

    model: Model = Field(default_factory=ModelChoice, description="preset or settings")
    train: Annotated[TrainSettings, empty_allowed(TrainSettings)] = TrainSettings()
    eval: Annotated[EvalSettings, empty_allowed(EvalSettings)] = EvalSettings()
    sample: Annotated[SampleSettings, empty_allowed(SampleSettings)] = SampleSettings()
    bench: Annotated[BenchSettings, empty_allowed(BenchSettings)] = BenchSettings()

    GROUPS: ClassVar = ("model", "train", "eval", "sample", "bench")


# What a sweep can name: (group, setting) by key; a dataset is in no group.
SWEEPABLE = {
    "dataset": ("", "dataset"),
    "model": ("model", "preset"),
    "seed": ("train", "seed"),
    **{
        f"{group}.{setting}": (group, setting)
        for group, settings in RunDefaults()
        for setting in type(settings).model_fields
    },
}


def _something_swept(value: Any) -> Any:
    if value is None or value == {}:
        raise ValueError("nothing is swept; name settings and their values, or leave it out")
    return value


SweptValue = Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]


class RunEntry(RunDefaults):
    """A run as config.yaml writes it: only what differs from `defaults`."""

    dataset: str | None = Field(None, description="name of a dataset; none: the run's own name")
    sweep: Annotated[
        dict[str, Annotated[list[SweptValue], Field(json_schema_extra={"minItems": 1})]],
        BeforeValidator(_something_swept),
    ] = Field(
        {},
        description="settings and the values that each takes, as `{model: [tiny, small], "
        "seed: [1, 2, 3], train.learning_rate: [1e-3, 2e-3]}`; the entry stands for a run of each "
        "combination (docs/SWEEPS.md)",
        json_schema_extra={"minProperties": 1, "propertyNames": {"enum": list(SWEEPABLE)}},
    )


class Report(Settings):
    """The report that `rule all` makes."""

    runs: list[str] = Field(
        default_factory=list,
        description="runs that the report compares; a sweep stands for all of its runs",
    )


class Config(RunDefaults):
    """All of config.yaml. Groups at top level override every run; they are meant for --config."""

    corpora: dict[str, Corpus] = Field(default_factory=dict)
    datasets: dict[str, Annotated[Dataset, empty_allowed(Dataset)]] = Field(default_factory=dict)
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    runs: dict[str, Annotated[RunEntry, empty_allowed(RunEntry)]] = Field(default_factory=dict)
    defaults: RunDefaults = Field(default_factory=RunDefaults)
    report: Report = Field(default_factory=Report)
    mirrors: list[str] = Field(
        default_factory=list,
        description="directories or URL prefixes that hold a file at <host>/<path>, tried first",
    )

    _sweep_of: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sweep_of(self) -> dict[str, str]:
        """The entry of config.yaml that a sweep's run comes from, by the run's name."""
        return self._sweep_of


class Run(Settings):
    """What a run comes to: every setting has its value."""

    name: str
    dataset: str
    model: ModelSettings
    train: TrainSettings
    eval: EvalSettings
    sample: SampleSettings
    bench: BenchSettings


def find_texts(directory: Path = TEXTS) -> list[str]:
    """The names (without .txt) of the user's own texts, sorted; hidden files are none."""
    return sorted(p.stem for p in directory.glob("[!.]*.txt"))


def read(path: str | Path = "config.yaml") -> Config:
    """Read and check a config file, with the texts of resources/texts/.

    Errors: UserError for a file that is absent, no YAML or wrong.
    """
    return load(read_mapping(path), find_texts(Path(path).parent / TEXTS))


def read_mapping(path: str | Path = "config.yaml") -> dict[Any, Any]:
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


def load(mapping: Mapping[str, Any], texts: Iterable[str] = ()) -> Config:
    """Check the mapping of config.yaml; each name of `texts` becomes a corpus and a dataset.

    The runs of a sweep stand in its place, in `runs` and in `report.runs`.

    Errors: UserError with one line that names the first thing that is wrong.
    """
    try:
        config = Config.model_validate(mapping)
    except ValidationError as error:
        raise UserError(explain(error)) from None
    taken = {**config.runs, **config.datasets, **config.corpora}
    for name in texts:
        if not NAME.fullmatch(name):
            raise UserError(
                f"{TEXTS}/{name}.txt: `{name}` is no name; {NAME_RULE}; rename the text"
            )
        if RESERVED_RUN_NAMES.fullmatch(name):
            raise UserError(f"{TEXTS}/{name}.txt: `{name}` is a reserved name; rename the text")
        if name in taken:
            raise UserError(
                f"{TEXTS}/{name}.txt: config.yaml has a run, dataset or corpus `{name}` as well; "
                "rename the text"
            )
    dropped = {name: Corpus(files=[str(TEXTS / f"{name}.txt")]) for name in texts}
    config = config.model_copy(
        update={
            "corpora": {**config.corpora, **dropped},
            "datasets": {**config.datasets, **{name: Dataset() for name in dropped}},
        }
    )
    _check_names(config)
    config = _with_runs_of_sweeps(config)
    for name in run_names(config):
        resolve_run(config, name)
    return config.model_copy(update={"report": Report(runs=_report_runs(config))})


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
        find(config.corpora, dataset.corpus or name, f"datasets.{name}.corpus", "corpus")
        _check_tokenizer(config, name)
    for name, run in config.runs.items():
        if "dataset" not in run.sweep:
            find(config.datasets, run.dataset or name, f"runs.{name}.dataset", "dataset")


def _report_runs(config: Config) -> list[str]:
    """The runs of the report, each once."""
    known = dict.fromkeys([*run_names(config), *config.sweep_of.values()])
    seen: set[str] = set()
    for name in config.report.runs:
        find(known, name, "report.runs", "run")
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


def _with_runs_of_sweeps(config: Config) -> Config:
    """The config with the runs of each sweep in its place."""
    runs: dict[str, RunEntry] = {}
    sweep_of: dict[str, str] = {}
    for name, entry in config.runs.items():
        if not entry.sweep:
            runs[name] = entry
            continue
        where = f"runs.{name}.sweep"
        for run, swept in _runs_of_sweep(config, name, entry):
            if sweep_of.get(run) == name:
                raise UserError(
                    f"{where}: two of its runs would be called `{run}`; put its keys in another "
                    "order, or rename a value"
                )
            if run in runs or run in config.runs or run in config.datasets:
                raise UserError(
                    f"{where}: one of its runs would be called `{run}`, as another run, dataset or "
                    "text is; rename one of them"
                )
            if len(run) > LONGEST_NAME:
                raise UserError(
                    f"{where}: the name of a run, `{run[:LONGEST_SHOWN]}…`, would have {len(run)} "
                    f"characters, and {LONGEST_NAME} are the most; shorten the names in it, or "
                    "sweep fewer settings"
                )
            runs[run] = swept
            sweep_of[run] = name
    expanded = config.model_copy(update={"runs": runs})
    expanded._sweep_of = sweep_of
    return expanded


def _runs_of_sweep(config: Config, name: str, entry: RunEntry) -> Iterator[tuple[str, RunEntry]]:
    """The name and the entry of each run of a sweep; the first key varies slowest."""
    keys: dict[tuple[str, str], str] = {}
    axes = []
    for key, values in entry.sweep.items():
        where = f"runs.{name}.sweep.{key}"
        if key not in SWEEPABLE:
            raise UserError(f"{where}: unknown setting{_meant_setting(key)}")
        other = keys.setdefault(SWEEPABLE[key], key)
        if other != key:
            raise UserError(f"{where}: `{other}` is the same setting; leave one of them out")
        axes.append(_swept_values(config, key, values, where))
    for combination in itertools.product(*axes):
        groups: dict[str, dict[str, Any]] = {"": {"dataset": entry.dataset or name, "sweep": {}}}
        for (group, setting), (_, value) in zip(keys, combination, strict=True):
            groups.setdefault(group, {})[setting] = value
        laid_over = groups.pop("")
        for group, settings in groups.items():
            laid_over[group] = getattr(entry, group).model_copy(update=settings)
        run = ".".join([name, *(part for part, _ in combination)])
        yield run, entry.model_copy(update=laid_over)


def _swept_values(config: Config, key: str, values: list[Any], where: str) -> list[tuple[str, Any]]:
    """The values of a key, checked: (its part of the run's name, value)."""
    group, setting = SWEEPABLE[key]
    model: type[Settings] = type(getattr(config.defaults, group)) if group else RunEntry
    names = {"preset": (config.models, "model"), "dataset": (config.datasets, "dataset")}
    if not values:
        raise UserError(f"{where}: no value; give it some, or leave it out")
    texts: dict[Any, str] = {}
    for given in values:
        if isinstance(given, list | dict):
            raise UserError(
                f"{where}: a list or mapping cannot be swept (found {_shown(given)}); write such "
                "runs one by one"
            )
        try:
            value = getattr(model.model_validate({setting: given}), setting)
        except ValidationError as error:
            raise UserError(f"{where}: {_told(error.errors(include_url=False)[0])}") from None
        text = _as_part_of_name(given)
        if setting in names:
            known, kind = names[setting]
            find(known, text, where, kind)
        if not NAME.fullmatch(f"{setting}-{text}"):
            raise UserError(
                f"{where}: `{text}` cannot stand in the name of a run, which has letters, digits, "
                "dot, dash and underscore; write such runs one by one"
            )
        if value in texts:
            also = "" if texts[value] == text else f", as `{texts[value]}` too"
            raise UserError(f"{where}: `{text}` stands there twice{also}; name it once")
        texts[value] = text
    part = key.rpartition(".")[2]
    return [(f"{part}-{text}", value) for value, text in texts.items()]


def _as_part_of_name(value: Any) -> str:
    """A value as config.yaml has it; what is no string, as YAML writes it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else _yaml_scalar(value)


def _meant_setting(key: str) -> str:
    """What an unknown key of a sweep should perhaps be."""
    in_groups = [f"`{known}`" for known in SWEEPABLE if known.endswith(f".{key}")]
    if in_groups:
        return f"; did you mean {' or '.join(in_groups)}?"
    return _did_you_mean(key, SWEEPABLE) or "; a setting is named with its group: `train.max_iters`"


def _check_tokenizer(config: Config, dataset: str) -> None:
    """UserError if a dataset's tokenizer is of no kind and no dataset's, or at last its own."""
    way = [dataset]
    while (tokenizer := config.datasets[way[-1]].tokenizer) not in TOKENIZERS:
        known = (*TOKENIZERS, *config.datasets)
        find(known, tokenizer, f"datasets.{way[-1]}.tokenizer", "tokenizer or dataset")
        way.append(tokenizer)
        if tokenizer in way[:-1]:
            raise UserError(
                f"datasets.{dataset}.tokenizer: a circle: {' -> '.join(way)}; "
                f"give one of them {', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]}"
            )


def run_names(config: Config) -> list[str]:
    """All names that can stand in results/<run>/: runs, and datasets that no run is named after."""
    entries = {*config.runs, *config.sweep_of.values()}
    return [*config.runs, *(name for name in config.datasets if name not in entries)]


def expand(config: Config, names: Iterable[str]) -> list[str]:
    """The names with those of sweeps replaced by their runs."""
    runs: dict[str, list[str]] = {}
    for run, sweep in config.sweep_of.items():
        runs.setdefault(sweep, []).append(run)
    return [run for name in names for run in runs.get(name, [name])]


# What a benchmark takes from the settings of other groups; the rest changes no speed.
BENCHED = {
    "train": ("batch_size", "device", "dtype", "compile", "deterministic"),
    "sample": ("device", "dtype"),
}


def bench_runs(config: Config, runs: Sequence[str]) -> dict[str, str]:
    """For each run, the first of them whose benchmark would be the same: one is enough for all."""
    first: dict[Any, str] = {}
    same = {}
    for name in runs:
        run = resolve_run(config, name)
        taken = {
            (group, setting): getattr(getattr(run, group), setting)
            for group, settings in BENCHED.items()
            for setting in settings
        }
        if run.bench.batch_size:
            taken["train", "batch_size"] = run.bench.batch_size
        rest = run.bench.model_copy(update={"batch_size": None})
        measured = (run.dataset, run.model, *taken.values(), rest)
        same[name] = first.setdefault(measured, name)
    return same


def find(names: Any, name: str, where: str, kind: str) -> Any:
    """`names[name]`, or the name of a list; UserError with the nearest name if there is none."""
    if name not in names:
        raise UserError(f"{where}: no {kind} `{name}`{_did_you_mean(name, names)}")
    return names[name] if isinstance(names, Mapping) else name


def corpus_of(config: Config, dataset: str) -> str:
    """The name of a dataset's corpus."""
    return config.datasets[dataset].corpus or dataset


def find_dataset(config: Config, name: str) -> tuple[Corpus, Dataset]:
    """A dataset and its corpus."""
    return config.corpora[corpus_of(config, name)], config.datasets[name]


def run_layers(config: Config, name: str) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """The settings of a run by source, weakest first: (source, {group: {setting: value}})."""
    if name not in config.runs:
        runs = expand(config, [name])
        if runs != [name]:
            shown = ", ".join(f"`{run}`" for run in runs[:RUNS_SHOWN])
            more = f" and {len(runs) - RUNS_SHOWN:,} more" if len(runs) > RUNS_SHOWN else ""
            raise UserError(f"runs: `{name}` is a sweep; its runs are {shown}{more}")
        find(run_names(config), name, "runs", "run")
    layers: list[tuple[str, dict[str, dict[str, Any]]]] = []
    entries: list[tuple[str, RunDefaults]] = [("defaults", config.defaults)]
    if name in config.runs:
        entries.append((f"runs.{config.sweep_of.get(name, name)}", config.runs[name]))
    entries.append(("command line", config))
    for source, entry in entries:
        groups = {
            group: getattr(entry, group).model_dump(exclude_unset=True)
            for group in RunDefaults.GROUPS
        }
        preset = groups["model"].pop("preset", None)
        if preset is not None:
            settings = find(config.models, preset, f"{source}.model", "model")
            layers.append((f"models.{preset}", {"model": settings.model_dump(exclude_unset=True)}))
        layers.append((source, groups))
    return layers


def resolve_run(config: Config, name: str) -> Run:
    """Lay a run's settings over one another and check what they come to.

    Errors: UserError for an unknown run or preset, or settings that do not go together.
    """
    merged: dict[str, dict[str, Any]] = {group: {} for group in RunDefaults.GROUPS}
    for _, groups in run_layers(config, name):
        for group, settings in groups.items():
            merged[group].update(settings)
    dataset = (config.runs[name].dataset if name in config.runs else None) or name
    run = Run.model_validate({"name": name, "dataset": dataset, **merged})
    model, train = run.model, run.train
    try:
        check_model(model)
    except UserError as error:
        raise UserError(f"runs.{name}.model: {error}; change one of them") from None
    if train.decay_lr and train.min_lr > train.learning_rate:
        raise UserError(
            f"runs.{name}.train: min_lr {train.min_lr:g} is above "
            f"learning_rate {train.learning_rate:g}; lower it"
        )
    late = [step for step in train.milestones if step > train.max_iters]
    if late:
        raise UserError(
            f"runs.{name}.train: milestones: step {late[0]} comes after max_iters "
            f"{train.max_iters}; leave it out, or raise max_iters"
        )
    if train.decay_lr and train.warmup_iters >= (train.lr_decay_iters or train.max_iters):
        raise UserError(
            f"runs.{name}.train: warmup_iters {train.warmup_iters} leaves no step for the decay, "
            f"which ends at {train.lr_decay_iters or train.max_iters}; lower it"
        )
    return run


def check_model(model: ModelSettings) -> None:
    """UserError if the settings of a model do not go together."""
    if model.n_embd % model.n_head:
        raise UserError(f"n_embd {model.n_embd} is not divisible by n_head {model.n_head}")
    if model.position == "rotary" and model.n_embd // model.n_head % 2:
        raise UserError(
            f"rotary positions turn pairs, but n_embd {model.n_embd} / n_head {model.n_head} is odd"
        )


def describe_run(config: Config, name: str) -> str:
    """What a run resolves to, as YAML, with the source of each value in a comment."""
    run = resolve_run(config, name)
    source = {
        (group, setting): origin
        for origin, groups in run_layers(config, name)
        for group, settings in groups.items()
        for setting in settings
    }
    lines = [f"dataset: {run.dataset}"]
    for group in RunDefaults.GROUPS:
        lines.append(f"{group}:")
        for setting, value in getattr(run, group).model_dump().items():
            text = f"{setting}: {_yaml_scalar(value)}"
            lines.append(f"  {text:<36} # {source.get((group, setting), 'built in')}")
    return "\n".join(lines) + "\n"


def _yaml_scalar(value: Any) -> str:
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, default_style=style, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def settings_page() -> str:
    """docs/SETTINGS.md: all settings with default and meaning, as Markdown."""
    lines = [
        "# Settings",
        "",
        "Printed by `nanogpt settings` from `nanogpt/config.py`; not to be edited by hand. The",
        "defaults are the package's. What a run comes to, `nanogpt config <run>` says.",
    ]
    for title, model, names in (
        ("model", ModelChoice, ModelChoice.model_fields),
        ("train", TrainSettings, TrainSettings.model_fields),
        ("eval", EvalSettings, EvalSettings.model_fields),
        ("sample", SampleSettings, SampleSettings.model_fields),
        ("bench", BenchSettings, BenchSettings.model_fields),
        ("corpora.<name>", Corpus, Corpus.model_fields),
        ("datasets.<name>", Dataset, Dataset.model_fields),
        ("runs.<name>, beside the groups above", RunEntry, ["dataset", "sweep"]),
        ("report", Report, ["runs"]),
        ("top level", Config, ["mirrors"]),
    ):
        lines += ["", f"## {title}", "", "| setting | default | meaning |", "|---|---|---|"]
        for name in names:
            field = model.model_fields[name]
            default = json.dumps(field.get_default(call_default_factory=True))
            lines.append(f"| `{name}` | `{default}` | {field.description} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema of config.yaml, for editors."""
    return Config.model_json_schema()


def explain(error: ValidationError, model: type[BaseModel] = Config) -> str:
    """The first mistake that a validation found, in one line. model: what was validated."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        names = _settings_at(first["loc"][:-1], model)
        message = f"unknown setting{_did_you_mean(str(first['loc'][-1]), names)}"
    else:
        message = _told(first)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where or 'config'}: {message}{more}"


def _told(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says, and of which value."""
    message = _problem(error)
    found = error["input"]
    if isinstance(found, str | int | float | list | None) and f"`{found}`" not in message:
        message += f" (found {_shown(found)})"
    return message


def _problem(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says, in words of config.yaml."""
    if error["type"] == "string_pattern_mismatch":
        return f"should be {PATTERNS[error['ctx']['pattern']]}"
    if error["type"] in ("dict_type", "model_type"):
        return "should be a mapping of settings"
    if error["type"] == "string_type" and isinstance(error["input"], int | float | date):
        return "should be text; put it in quotes"
    message: str = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]


def _shown(value: Any) -> str:
    """A value as config.yaml would have it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "nothing"
    text = repr(value)
    if isinstance(value, list):
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _settings_at(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """The settings that may stand at a place of what `model` describes."""
    parts = iter(location)
    for part in parts:
        annotation: Any = model.model_fields[str(part)].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a name of the user's, as in runs.<name>
            annotation = get_args(annotation)[1]
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        model = annotation
    return list(model.model_fields)


def _did_you_mean(name: str, names: Iterable[str], none: str = "; there is none") -> str:
    """The nearest of some names, else all of them if they are few."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{near[0]}`?"
    few = len(names) <= MANY_NAMES
    if names and few:
        return f"; there is {', '.join(f'`{n}`' for n in names)}"
    return "" if names else none
