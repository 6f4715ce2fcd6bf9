"""The definition of every setting: name, type, range, default, unit and description.

Each group of settings is a frozen model that rejects unknown keys. `Config` is all of config.yaml,
and `Run` has the resolved settings of one run."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, WithJsonSchema

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.parameters import input_setting, new_setting
from nanogpt.config.patterns import DEVICE
from nanogpt.config.values import Count, Seed, Settings, expand_home, read_switch, whole_number
from nanogpt.errors import UserError


class ModelSettings(Settings):
    """The model's architecture and size."""

    n_layer: int = Field(6, ge=1, le=10_000, description="number of transformer blocks")
    n_head: int = Field(6, ge=1, description="attention heads per block; must divide n_embd")
    n_embd: int = Field(384, ge=1, le=1_000_000, description="width of the residual stream")
    block_size: int = Field(256, ge=1, le=100_000_000, description="context length, in tokens")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout probability during training")
    bias: bool = Field(False, description="biases in linear layers and norms, as in GPT-2")
    position: Literal["learned", "rotary"] = Field(
        "learned",
        description="position encoding; learned: a vector per position, as in GPT-2; rotary: RoPE, "
        "which learns faster",
    )
    activation: Literal["gelu", "gelu_tanh", "relu2"] = Field(
        "gelu",
        description="activation function; gelu: exact, as in nanoGPT; gelu_tanh: GPT-2's "
        "approximation, slower; relu2: squared ReLU, faster",
    )
    norm: Literal["layernorm", "rmsnorm"] = new_setting(
        "layernorm",
        neutral="layernorm",
        description="normalization; layernorm: as in GPT-2; rmsnorm: RMSNorm without weights",
    )
    embedding_norm: bool = new_setting(
        False, neutral=False, description="RMSNorm without weights after the token embedding"
    )
    qk_norm: bool = new_setting(
        False, neutral=False, description="RMSNorm without weights on queries and keys"
    )
    tie_word_embeddings: bool = new_setting(
        True,
        neutral=True,
        description="one matrix for the token embedding and the output layer",
    )
    final_logit_softcapping: float = new_setting(
        0.0, neutral=0.0, ge=0, description="c: replace logits by c * tanh(logits / c); 0: off"
    )
    init: Literal["gpt2", "zero_proj"] = new_setting(
        "gpt2",
        neutral="gpt2",
        description="initial weights; gpt2: standard deviation 0.02; zero_proj: zero for the "
        "output projections of attention and MLP and for an untied output layer",
    )


class ModelChoice(ModelSettings):
    """A run's `model`: a preset, settings, or a preset with some settings changed."""

    preset: str | None = Field(None, description="name of an entry of `models`")


def _preset_by_name(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value or {}


def empty_allowed(model: Any) -> BeforeValidator:
    """Let `name:` with nothing after it stand for an entry without settings."""
    return BeforeValidator(lambda value: {} if value is None else value, model | None)


# Lets `mirrors:` with nothing after it stand for an empty list.
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
INFERENCE_DTYPES = "auto, float32, bfloat16 or float16 (autocast), int8 (CPU; docs/SAMPLING.md)"

Reproducible = Literal["machine", "anywhere"]


def reproducible() -> Any:
    """Define the setting `reproducible` of a group."""
    return new_setting(
        "machine",
        neutral="machine",
        description="which machines get the same bytes; machine: those with the same CPU and "
        "number of threads; anywhere: all x86-64 CPUs with AVX2, in float32 and slower "
        "(docs/REPRODUCIBILITY.md)",
    )


def check_device(device: str, dtype: str, reproducible: str) -> None:
    """Raise UserError if int8 or `anywhere` needs a CPU and another device is set.

    Also if `anywhere` is combined with a dtype that some machines don't support.
    """
    if dtype == "int8" and device not in ("auto", "cpu"):
        raise UserError("`dtype: int8` needs a CPU; set `device: cpu`, or another dtype")
    fits = device in ("auto", "cpu") and dtype in ("auto", "float32")
    if reproducible == "anywhere" and not fits:
        raise UserError(
            "`reproducible: anywhere` needs a CPU and float32; set `device: auto` and `dtype: auto`"
        )


class TrainSettings(Settings):
    """Training, with nanoGPT's names."""

    init_from: str | None = input_setting(
        min_length=1,
        description="initial weights: the name of a run, a model directory (a path with a slash), "
        "or gpt2, gpt2-medium, gpt2-large or gpt2-xl; none: random weights (docs/FINETUNING.md)",
    )
    max_iters: Count = Field(5000, description="number of optimizer steps")
    batch_size: Count = Field(64, description="windows of block_size tokens per micro-batch")
    gradient_accumulation_steps: Count = Field(
        1, description="micro-batches per step; needs less memory than a larger batch_size"
    )
    optimizer: Literal["adamw", "muon"] = new_setting(
        "adamw",
        neutral="adamw",
        description="adamw: AdamW for all parameters; muon: Muon for the matrices of the blocks, "
        "AdamW for the rest",
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="peak learning rate; with muon, of biases, norms and positions"
    )
    matrix_lr: float = new_setting(
        0.02,
        neutral=0.02,
        gt=0,
        description="with muon: peak learning rate of the blocks' matrices",
    )
    embedding_lr: float = new_setting(
        0.02,
        neutral=0.02,
        gt=0,
        description="with muon: peak rate of an untied token embedding",
    )
    unembedding_lr: float = new_setting(
        4e-3, neutral=4e-3, gt=0, description="with muon: peak rate of the output layer"
    )
    momentum: float = new_setting(0.95, neutral=0.95, ge=0, lt=1, description="with muon: momentum")
    ns_steps: int = new_setting(
        3, neutral=3, ge=1, le=5, description="with muon: steps of the Newton-Schulz iteration"
    )
    decay_lr: bool = Field(True, description="warm-up and decay; off: the peak rate throughout")
    lr_schedule: Literal["cosine", "wsd"] = new_setting(
        "cosine",
        neutral="cosine",
        description="schedule after the warm-up; cosine: nanoGPT's decay; wsd: constant, then a "
        "linear decay",
    )
    warmdown_ratio: float = new_setting(
        0.7,
        neutral=0.7,
        gt=0,
        le=1,
        description="with wsd: share of the steps with decay; at most those after the warm-up",
    )
    warmup_iters: int = Field(100, ge=0, lt=2**63, description="steps of linear warm-up")
    lr_decay_iters: int | None = Field(
        None,
        ge=1,
        lt=2**63,
        description="step at which the learning rate reaches min_lr; none: max_iters",
    )
    min_lr: float = Field(
        1e-4,
        ge=0,
        description="learning rate at the end of the decay; with muon, that of the matrices of the "
        "blocks, and the others decay in proportion",
    )
    weight_decay: float = Field(
        0.1, ge=0, description="weight decay of matrices; with muon, only of those of the blocks"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the first moment")
    beta2: float = Field(0.99, ge=0, lt=1, description="AdamW's decay of the second moment")
    grad_clip: float = Field(1.0, ge=0, description="clip gradients to this norm; 0: no clipping")
    eval_interval: Count = Field(250, description="steps between evaluations during training")
    eval_iters: Count = Field(
        200, description="batches per split in these evaluations, always the same ones"
    )
    log_interval: Count = Field(10, description="steps between lines of metrics.jsonl")
    keep: Literal["best", "last"] = Field(
        "best",
        description="weights to keep: those with the best validation loss, or the last",
    )
    milestones: list[Annotated[Count, BeforeValidator(whole_number)]] = Field(
        [], description="steps whose weights are also kept, in results/<run>/milestones/<step>/"
    )
    seed: Seed = Field(1337, description="seed of the initial weights, batches and dropout")
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Dtype = Field("auto", description="auto, float32, bfloat16 or float16 (autocast)")
    compile: bool = Field(False, description="use torch.compile; on a CPU, it needs a C++ compiler")
    deterministic: bool = Field(False, description="deterministic CUDA kernels, slower")
    reproducible: Reproducible = reproducible()

    @property
    def peak_rate(self) -> float:
        """The peak of the rate that decays to `min_lr`; with muon, that of the matrices."""
        return self.matrix_lr if self.optimizer == "muon" else self.learning_rate


class EvalSettings(Settings):
    """Evaluation of the trained model on the whole validation split."""

    batch_size: int = Field(32, ge=1, description="windows per forward pass")
    eval_iters: int = Field(200, ge=1, description="random batches of nanoGPT's estimate")
    seed: Seed = Field(1337, description="seed of nanoGPT's estimate")
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    # Not auto, so that losses and samples of different machines are comparable.
    dtype: InferenceDtype = Field("float32", description=INFERENCE_DTYPES)
    reproducible: Reproducible = reproducible()


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


# Prefixes of a file in `start`: the whole file is a prompt, or each line is one.
FILE, LINES = PROMPT_FILES = ("FILE:", "LINES:")


class SampleSettings(Settings):
    """Sampling from the trained model."""

    start: str = Field(
        "",
        description="prompt; FILE:path: the text of a UTF-8 file; LINES:path: a prompt per line "
        "of a file; empty: the start of a text",
    )
    num_samples: int = Field(5, ge=1, description="number of samples per prompt")
    max_new_tokens: int = Field(500, ge=1, description="tokens per sample, without the prompt")
    temperature: float = Field(
        0.8,
        ge=0,
        description="below 1: less random; above 1: more random; 0: always the most likely token",
    )
    top_k: int = Field(200, ge=0, description="sample from this many most likely tokens; 0: all")
    top_p: float = new_setting(
        1.0,
        neutral=1.0,
        gt=0,
        le=1,
        description="sample from the most likely tokens with this total probability; 1: all",
    )
    min_p: float = new_setting(
        0.0,
        neutral=0.0,
        ge=0,
        le=1,
        description="sample from the tokens with at least this share of the most likely token's "
        "probability; 0: all",
    )
    repetition_penalty: float = new_setting(
        1.0,
        neutral=1.0,
        gt=0,
        description="above 1: tokens that already occurred become less likely; 1: off",
    )
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str] | None),
    ] = new_setting([], neutral=[], description="strings that end a sample, and aren't part of it")
    window: Literal["half", "crop", "slide"] = new_setting(
        "half",
        neutral="half",
        description="context of texts longer than block_size; half: cut to the last half, then it "
        "grows again; crop: the last block_size tokens, as in nanoGPT, slow; slide: drop the "
        "oldest token, only with rotary positions (docs/SAMPLING.md)",
    )
    draft: int = new_setting(
        0,
        neutral=0,
        ge=0,
        description="speculative decoding: tokens that the run's n-grams draft for each pass of "
        "the model; samples differ, but not their distribution; 0: off (docs/SAMPLING.md)",
    )
    seed: Seed = Field(1337, description="seed of the first sample; each further sample adds 1")
    unknown: Literal["error", "skip"] = Field(
        "error",
        description="what to do with characters of a prompt that aren't in the vocabulary",
    )
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    # Not auto, so that losses and samples of different machines are comparable.
    dtype: InferenceDtype = Field("float32", description=INFERENCE_DTYPES)
    reproducible: Reproducible = reproducible()

    @property
    def prompt_file(self) -> str | None:
        """The prompt file in `start`, if there is one."""
        prefix = next((prefix for prefix in PROMPT_FILES if self.start.startswith(prefix)), None)
        return None if prefix is None else expand_home(self.start.removeprefix(prefix))


class BenchSettings(Settings):
    """The benchmark of training and sampling, with the defaults of nanoGPT's bench.py."""

    batch_size: int | None = Field(None, ge=1, description="windows per step; none: as in train")
    data: Literal["real", "random"] = Field(
        "real", description="real: windows of the dataset; random: random token ids"
    )
    burn_in: int = Field(10, ge=0, description="steps before timing starts")
    steps: int = Field(20, ge=1, description="timed steps")
    seed: Seed = Field(1337, description="seed of the initial weights, batches and dropout")


class NgramSettings(Settings):
    """N-grams of the training split, whose predictions are mixed with the GPT's."""

    max_order: int = Field(8, ge=1, le=16, description="length of the longest n-grams, in tokens")
    # Tuned on text that neither the GPT nor the counts had seen: benchmarks/ngram_weights.py.
    weight: float = Field(
        0.9,
        ge=0,
        le=1,
        description="weight of the n-grams where they are certain",
    )
    caution: float = Field(
        0.5,
        ge=0,
        le=10,
        description="how much less weight they get where they aren't; 0: the same everywhere",
    )
    max_tokens: int = Field(
        8_000_000,
        ge=2,
        lt=2**32,
        description="count this many tokens, from the end of the training split; each takes up to "
        "300 bytes of memory",
    )


class NgramChoice(NgramSettings):
    """N-grams to mix with a run's GPT: `ngram: on`, `ngram: off`, or settings, which means on."""

    use: bool = Field(
        False, description="mix in n-grams; on if any other setting of the group is given"
    )


def _on_or_off(value: Any) -> Any:
    if isinstance(value, bool | str):  # a string from the command line
        return {"use": read_switch(value)}
    return {**IMPLIED["ngram"], **value} if isinstance(value, dict) else value or {}


# `ngram: on` is short for `ngram: {use: true}`, and `ngram: {weight: 0.4}` implies it.
Ngram = Annotated[
    NgramChoice, BeforeValidator(_on_or_off, json_schema_input_type=bool | NgramChoice | None)
]

# Settings that any other setting of a group implies, in an entry or in a sweep.
IMPLIED: dict[str, dict[str, bool]] = {"ngram": {"use": True}}


class RunDefaults(Settings):
    """The groups of settings of a run. `defaults` has them for all runs."""

    model: Model = Field(default_factory=ModelChoice, description="preset or settings")
    train: Annotated[TrainSettings, empty_allowed(TrainSettings)] = TrainSettings()
    eval: Annotated[EvalSettings, empty_allowed(EvalSettings)] = EvalSettings()
    sample: Annotated[SampleSettings, empty_allowed(SampleSettings)] = SampleSettings()
    bench: Annotated[BenchSettings, empty_allowed(BenchSettings)] = BenchSettings()
    ngram: Ngram = NgramChoice()

    GROUPS: ClassVar = ("model", "train", "eval", "sample", "bench", "ngram")


# Settings that can be swept: (group, setting) by key. `dataset` isn't in a group.
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
        raise ValueError("the sweep is empty; list settings with their values, or remove it")
    return value


SweptValue = Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]


class RunEntry(RunDefaults):
    """An entry of `runs`: settings that differ from `defaults`."""

    dataset: str | None = Field(None, description="name of a dataset; none: the run's name")
    ensemble: list[str] = Field(
        default_factory=list,
        description="runs with the same dataset whose predicted probabilities are averaged; an "
        "ensemble isn't trained, so it can't set dataset, model, train or bench",
    )
    sweep: Annotated[
        dict[str, Annotated[list[SweptValue], Field(json_schema_extra={"minItems": 1})]],
        BeforeValidator(_something_swept),
    ] = Field(
        {},
        description="settings with lists of values, such as `{model: [modern, baby], seed: [1, 2, "
        "3], train.matrix_lr: [0.01, 0.02]}`; makes a run for each combination (docs/SWEEPS.md)",
        json_schema_extra={"minProperties": 1, "propertyNames": {"enum": list(SWEEPABLE)}},
    )


class Report(Settings):
    """The report of the workflow."""

    runs: Annotated[list[str], EMPTY_LIST] = Field(
        default_factory=list,
        description="runs to compare in the report; a sweep means all its runs",
    )


# The mappings of config.yaml from the user's names to entries.
Corpora = dict[str, Corpus]
Datasets = dict[str, Annotated[Dataset, empty_allowed(Dataset)]]
Models = dict[str, Annotated[ModelSettings, empty_allowed(ModelSettings)]]
Runs = dict[str, Annotated[RunEntry, empty_allowed(RunEntry)]]


class Config(RunDefaults):
    """All of config.yaml. Groups at top level override every run; they are for `--config`."""

    corpora: Annotated[Corpora, empty_allowed(Corpora)] = Field(default_factory=dict)
    datasets: Annotated[Datasets, empty_allowed(Datasets)] = Field(default_factory=dict)
    models: Annotated[Models, empty_allowed(Models)] = Field(default_factory=dict)
    runs: Annotated[Runs, empty_allowed(Runs)] = Field(default_factory=dict)
    defaults: Annotated[RunDefaults, empty_allowed(RunDefaults)] = Field(
        default_factory=RunDefaults
    )
    report: Annotated[Report, empty_allowed(Report)] = Field(default_factory=Report)
    mirrors: Annotated[list[Annotated[str, AfterValidator(expand_home)]], EMPTY_LIST] = Field(
        default_factory=list,
        description="directories or URL prefixes to try first, which have files at <host>/<path>",
    )

    _sweep_of: dict[str, str] = PrivateAttr(default_factory=dict)
    _root: Path = PrivateAttr(default_factory=Path)
    _resolved: dict[str, "Run"] = PrivateAttr(default_factory=dict)  # filled by `resolve_run`

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._resolved = {}  # because `model_copy` changes the copy's settings
        return copied

    @property
    def root(self) -> Path:
        """The project's directory, which its paths are relative to."""
        return self._root

    @property
    def sweep_of(self) -> dict[str, str]:
        """The names of sweeps, by the names of their runs."""
        return self._sweep_of


class Run(Settings):
    """A run's resolved settings.

    ensemble: the runs whose predictions are averaged; empty if the run is trained. ngram: None
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
