"""Settings: the one place for a setting's name, type, range, default, unit and meaning.

Each group of settings is a frozen model that refuses unknown keys. `Config` is all of config.yaml,
`Run` is what a run resolves to. Loading, sweeps and resolving are modules of their own."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    WithJsonSchema,
)

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.parameters import input_setting, new_setting
from nanogpt.config.patterns import DEVICE
from nanogpt.config.values import Seed, Settings, whole_number
from nanogpt.errors import UserError


class ModelSettings(Settings):
    """Architecture: GPT-2's, as small or as large as these say."""

    n_layer: int = Field(6, ge=1, le=10_000, description="transformer blocks")
    n_head: int = Field(6, ge=1, description="attention heads of a block; must divide n_embd")
    n_embd: int = Field(384, ge=1, le=1_000_000, description="width of the residual stream")
    block_size: int = Field(256, ge=1, le=100_000_000, description="context length, in tokens")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout probability while training")
    bias: bool = Field(False, description="biases in linear layers and norms, as in GPT-2")
    position: Literal["learned", "rotary"] = Field(
        "learned",
        description="learned: a vector a position, as in GPT-2; rotary: RoPE, learns sooner",
    )
    activation: Literal["gelu", "gelu_tanh", "relu2"] = Field(
        "gelu",
        description="gelu: exact, as in nanoGPT; gelu_tanh: GPT-2's approximation, slower; relu2: "
        "squared ReLU, faster",
    )
    norm: Literal["layernorm", "rmsnorm"] = new_setting(
        "layernorm",
        neutral="layernorm",
        description="layernorm: as in GPT-2; rmsnorm: root mean square, without weights",
    )
    embedding_norm: bool = new_setting(
        False, neutral=False, description="RMSNorm, without weights, after the token embedding"
    )
    qk_norm: bool = new_setting(
        False, neutral=False, description="RMSNorm, without weights, of each query and key"
    )
    tie_word_embeddings: bool = new_setting(
        True, neutral=True, description="one matrix for the token embedding and the output layer"
    )
    final_logit_softcapping: float = new_setting(
        0.0, neutral=0.0, ge=0, description="c: logits become c * tanh(logits / c); 0: they don't"
    )
    init: Literal["gpt2", "zero_proj"] = new_setting(
        "gpt2",
        neutral="gpt2",
        description="initial weights; gpt2: std 0.02; zero_proj: zero where a branch joins the "
        "stream and in an untied output layer, so that all learn at one pace",
    )


class ModelChoice(ModelSettings):
    """A preset of `models`, settings of its own, or a preset with some settings changed."""

    preset: str | None = Field(None, description="name of an entry of `models`")


def _preset_by_name(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value or {}


def empty_allowed(model: Any) -> BeforeValidator:
    """Lets `name:` with nothing after it stand for an entry without settings."""
    return BeforeValidator(lambda value: {} if value is None else value, model | None)


# `mirrors:` with nothing after it.
EMPTY_LIST = BeforeValidator(
    lambda value: [] if value is None else value, json_schema_input_type=list[str] | None
)

# `model: small` is short for `model: {preset: small}`.
Model = Annotated[
    ModelChoice, BeforeValidator(_preset_by_name, json_schema_input_type=str | ModelChoice | None)
]

Device = Annotated[str, Field(pattern=DEVICE)]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
InferenceDtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
INFERENCE_DTYPES = "float32, bfloat16 or float16 (autocast), int8 (CPU; docs/SAMPLING.md), or auto"

Reproducible = Literal["machine", "anywhere"]


def reproducible() -> Any:
    """The setting `reproducible` of a group that computes."""
    return new_setting(
        "machine",
        neutral="machine",
        description="where the same bytes are made; machine: on such a CPU with as many threads; "
        "anywhere: on any x86-64 CPU with AVX2, in float32, slower (docs/REPRODUCIBILITY.md)",
    )


def check_device(device: str, dtype: str, reproducible: str) -> None:
    """UserError if a dtype or `anywhere` needs a CPU and another device is set.

    Also if `anywhere` meets a dtype that not every machine has.
    """
    if dtype == "int8" and device not in ("auto", "cpu"):
        raise UserError("dtype: int8 is computed on a CPU; set device: cpu, or another dtype")
    fits = device in ("auto", "cpu") and dtype in ("auto", "float32")
    if reproducible == "anywhere" and not fits:
        raise UserError(
            "reproducible: anywhere computes on a CPU in float32; set device: auto and dtype: auto"
        )


class TrainSettings(Settings):
    """Training. The names are nanoGPT's."""

    init_from: str | None = input_setting(
        min_length=1,
        description="what the weights are before the first step: those of a run, by its name, of a "
        "directory, by a path with a slash, or gpt2, gpt2-medium, gpt2-large or gpt2-xl; none: "
        "random (docs/FINETUNING.md)",
    )
    max_iters: int = Field(5000, ge=1, description="optimizer steps")
    batch_size: int = Field(64, ge=1, description="windows of block_size tokens in a micro-batch")
    gradient_accumulation_steps: int = Field(
        1,
        ge=1,
        description="micro-batches summed into one step; more memory-friendly than batch_size",
    )
    optimizer: Literal["adamw", "muon"] = new_setting(
        "adamw",
        neutral="adamw",
        description="adamw: for all parameters; muon: for the matrices of the blocks, and AdamW "
        "for the rest",
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="peak learning rate; with muon that of biases, norms and positions"
    )
    matrix_lr: float = new_setting(
        0.02, neutral=0.02, gt=0, description="muon's peak learning rate, of the blocks' matrices"
    )
    embedding_lr: float = new_setting(
        0.02, neutral=0.02, gt=0, description="with muon, that of an untied token embedding"
    )
    unembedding_lr: float = new_setting(
        4e-3, neutral=4e-3, gt=0, description="with muon, that of the output layer"
    )
    momentum: float = new_setting(0.95, neutral=0.95, ge=0, lt=1, description="muon's momentum")
    ns_steps: int = new_setting(
        3, neutral=3, ge=1, le=5, description="muon's steps of the Newton-Schulz iteration"
    )
    decay_lr: bool = Field(True, description="warm-up and decay; off: the peak rates throughout")
    lr_schedule: Literal["cosine", "wsd"] = new_setting(
        "cosine",
        neutral="cosine",
        description="after the warm-up; cosine: nanoGPT's decay; wsd: stable, then a linear decay",
    )
    warmdown_ratio: float = new_setting(
        0.7,
        neutral=0.7,
        gt=0,
        le=1,
        description="share of the steps in which wsd decays; at most those after the warm-up",
    )
    warmup_iters: int = Field(100, ge=0, description="steps of linear warm-up")
    lr_decay_iters: int | None = Field(
        None, ge=1, description="step at which min_lr is reached; none: max_iters"
    )
    min_lr: float = Field(
        1e-4,
        ge=0,
        description="learning rate at the end of the decay; with muon, that of the blocks' "
        "matrices, and the others fall in proportion",
    )
    weight_decay: float = Field(
        0.1, ge=0, description="decay of matrices; with muon, of the blocks' matrices only"
    )
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
    milestones: list[Annotated[int, Field(ge=1), BeforeValidator(whole_number)]] = Field(
        [], description="steps whose weights are kept too, in results/<run>/milestones/<step>/"
    )
    seed: Seed = Field(1337, description="seed of the initial weights, batches and dropout")
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Dtype = Field("auto", description="auto, float32, or bfloat16 or float16 (autocast)")
    compile: bool = Field(False, description="torch.compile; on a CPU it needs a C++ compiler")
    deterministic: bool = Field(False, description="deterministic CUDA kernels, slower")
    reproducible: Reproducible = reproducible()

    @property
    def peak_rate(self) -> float:
        """The rate that `min_lr` ends and metrics.jsonl shows: with muon, of the matrices."""
        return self.matrix_lr if self.optimizer == "muon" else self.learning_rate


class EvalSettings(Settings):
    """Evaluation of the finished model on whole splits."""

    batch_size: int = Field(32, ge=1, description="windows in a forward pass")
    eval_iters: int = Field(200, ge=1, description="random batches of nanoGPT's estimate")
    seed: Seed = Field(1337, description="seed of nanoGPT's estimate")
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    # Not auto: so that losses and samples of different machines compare.
    dtype: InferenceDtype = Field("float32", description=INFERENCE_DTYPES)
    reproducible: Reproducible = reproducible()


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


# How `start` names a file: its text is a prompt, or each of its lines is one.
FILE, LINES = PROMPT_FILES = ("FILE:", "LINES:")


class SampleSettings(Settings):
    """Sampling from the finished model."""

    start: str = Field(
        "",
        description="prompt, or FILE:path of a UTF-8 file, or LINES:path of one with a prompt in "
        "each line; empty: what comes before a text in the training data, such as a line feed",
    )
    num_samples: int = Field(5, ge=1, description="samples to draw, of each prompt")
    max_new_tokens: int = Field(500, ge=1, description="tokens of each sample, prompt not counted")
    temperature: float = Field(
        0.8,
        ge=0,
        description="below 1 more cautious, above more random; 0: always the likeliest token",
    )
    top_k: int = Field(200, ge=0, description="choose among this many likeliest tokens; 0: all")
    top_p: float = new_setting(
        1.0,
        neutral=1.0,
        gt=0,
        le=1,
        description="choose among the fewest tokens that have this probability together; 1: all",
    )
    min_p: float = new_setting(
        0.0,
        neutral=0.0,
        ge=0,
        le=1,
        description="choose among tokens with at least this share of the likeliest one's "
        "probability; 0: all",
    )
    repetition_penalty: float = new_setting(
        1.0,
        neutral=1.0,
        gt=0,
        description="above 1: tokens that occurred become less likely; 1: they don't",
    )
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str] | None),
    ] = new_setting([], neutral=[], description="strings that end a sample; they aren't part of it")
    window: Literal["half", "crop", "slide"] = new_setting(
        "half",
        neutral="half",
        description="what is seen once block_size tokens are there; half: the last half of them, "
        "and the window grows again; crop: the last block_size ones, as in nanoGPT, slow; slide: "
        "only with rotary positions, the oldest one is dropped (docs/SAMPLING.md)",
    )
    draft: int = new_setting(
        0,
        neutral=0,
        ge=0,
        description="tokens that the run's n-grams draft for each pass of the model, one sample "
        "after another; 0: none. Texts differ, but not their distribution (docs/SAMPLING.md)",
    )
    seed: Seed = Field(
        1337, description="seed of the draws; the next sample has the next number, and so on"
    )
    unknown: Literal["error", "skip"] = Field(
        "error", description="what a prompt's character that the vocabulary lacks gets"
    )
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    # Not auto: so that losses and samples of different machines compare.
    dtype: InferenceDtype = Field("float32", description=INFERENCE_DTYPES)
    reproducible: Reproducible = reproducible()

    @property
    def prompt_file(self) -> str | None:
        """The file that `start` names, if it names one."""
        prefix = next((prefix for prefix in PROMPT_FILES if self.start.startswith(prefix)), None)
        return None if prefix is None else self.start.removeprefix(prefix)


class BenchSettings(Settings):
    """The benchmark of training and sampling. The defaults are those of nanoGPT's bench.py."""

    batch_size: int | None = Field(None, ge=1, description="windows in a step; none: train's")
    data: Literal["real", "random"] = Field(
        "real", description="windows of the dataset, or random token ids"
    )
    burn_in: int = Field(10, ge=0, description="steps before timing starts")
    steps: int = Field(20, ge=1, description="timed steps")
    seed: Seed = Field(1337, description="seed of the initial weights, batches and dropout")


class NgramSettings(Settings):
    """N-grams of the training split, whose probabilities are mixed with the GPT's."""

    max_order: int = Field(8, ge=1, le=16, description="tokens of the longest n-grams")
    # Found on text that neither GPT nor counts had seen: benchmarks/ngram_weights.py.
    weight: float = Field(
        0.9, ge=0, le=1, description="share of the n-grams where they are sure; the rest: the GPT's"
    )
    caution: float = Field(
        0.5,
        ge=0,
        le=10,
        description="how much less they get where they aren't sure; 0: `weight` everywhere",
    )
    max_tokens: int = Field(
        8_000_000,
        ge=2,
        lt=2**32,
        description="how many tokens are counted, the last ones of the training split; up "
        "to 300 bytes of memory each",
    )


class NgramChoice(NgramSettings):
    """Whether a run mixes n-grams with its GPT. `ngram: on`, `ngram: off`, or settings: on."""

    use: bool = Field(False, description="whether n-grams are mixed in; giving a setting says so")


def _on_or_off(value: Any) -> Any:
    if isinstance(value, bool | str):  # a string from the command line
        return {"use": value}
    return {**IMPLIED["ngram"], **value} if isinstance(value, dict) else value or {}


# `ngram: on` is short for `ngram: {use: true}`, and `ngram: {weight: 0.4}` implies it.
Ngram = Annotated[
    NgramChoice, BeforeValidator(_on_or_off, json_schema_input_type=bool | NgramChoice | None)
]

# What giving any setting of a group says as well, in an entry or in a sweep.
IMPLIED: dict[str, dict[str, bool]] = {"ngram": {"use": True}}


class RunDefaults(Settings):
    """What all runs share unless they say otherwise."""

    model: Model = Field(default_factory=ModelChoice, description="preset or settings")
    train: Annotated[TrainSettings, empty_allowed(TrainSettings)] = TrainSettings()
    eval: Annotated[EvalSettings, empty_allowed(EvalSettings)] = EvalSettings()
    sample: Annotated[SampleSettings, empty_allowed(SampleSettings)] = SampleSettings()
    bench: Annotated[BenchSettings, empty_allowed(BenchSettings)] = BenchSettings()
    ngram: Ngram = NgramChoice()

    GROUPS: ClassVar = ("model", "train", "eval", "sample", "bench", "ngram")


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
    ensemble: list[str] = Field(
        default_factory=list,
        description="runs of one dataset whose predicted probabilities are averaged; such an entry "
        "trains nothing, and has no dataset, model or train of its own",
    )
    sweep: Annotated[
        dict[str, Annotated[list[SweptValue], Field(json_schema_extra={"minItems": 1})]],
        BeforeValidator(_something_swept),
    ] = Field(
        {},
        description="settings and the values that each takes, as `{model: [modern, baby], "
        "seed: [1, 2, 3], train.matrix_lr: [0.01, 0.02]}`; the entry stands for a run of each "
        "combination (docs/SWEEPS.md)",
        json_schema_extra={"minProperties": 1, "propertyNames": {"enum": list(SWEEPABLE)}},
    )


class Report(Settings):
    """The report that `rule all` makes."""

    runs: Annotated[list[str], EMPTY_LIST] = Field(
        default_factory=list,
        description="runs that the report compares; a sweep stands for all of its runs",
    )


# The maps of config.yaml, by names of the user's.
Corpora = dict[str, Corpus]
Datasets = dict[str, Annotated[Dataset, empty_allowed(Dataset)]]
Models = dict[str, Annotated[ModelSettings, empty_allowed(ModelSettings)]]
Runs = dict[str, Annotated[RunEntry, empty_allowed(RunEntry)]]


class Config(RunDefaults):
    """All of config.yaml. Groups at top level override every run; they are meant for --config."""

    corpora: Annotated[Corpora, empty_allowed(Corpora)] = Field(default_factory=dict)
    datasets: Annotated[Datasets, empty_allowed(Datasets)] = Field(default_factory=dict)
    models: Annotated[Models, empty_allowed(Models)] = Field(default_factory=dict)
    runs: Annotated[Runs, empty_allowed(Runs)] = Field(default_factory=dict)
    defaults: Annotated[RunDefaults, empty_allowed(RunDefaults)] = Field(
        default_factory=RunDefaults
    )
    report: Annotated[Report, empty_allowed(Report)] = Field(default_factory=Report)
    mirrors: Annotated[list[str], EMPTY_LIST] = Field(
        default_factory=list,
        description="directories or URL prefixes that hold a file at <host>/<path>, tried first",
    )

    _sweep_of: dict[str, str] = PrivateAttr(default_factory=dict)
    _root: Path = PrivateAttr(default_factory=Path)

    @property
    def root(self) -> Path:
        """The directory of the project, from which its paths are looked up."""
        return self._root

    @property
    def sweep_of(self) -> dict[str, str]:
        """The entry of config.yaml that a sweep's run comes from, by the run's name."""
        return self._sweep_of


class Run(Settings):
    """A resolved run: every setting has its value.

    ensemble: the runs whose predictions are averaged; none in a run that trains. ngram: None
    without n-grams.
    """

    name: str
    dataset: str
    ensemble: tuple[str, ...] = ()
    model: ModelSettings
    train: TrainSettings
    eval: EvalSettings
    sample: SampleSettings
    bench: BenchSettings
    ngram: NgramSettings | None = None
