"""eval.json: how well a model predicts a whole split. docs/EVALUATION.md explains each number."""

from pydantic import ConfigDict, Field

from nanogpt.artifacts.records.base import Number, OptionalNumber, PositiveCount, Record


class ModelSummary(Record):
    """The evaluated model, with its settings as extra fields."""

    model_config = ConfigDict(extra="allow")

    n_parameters: PositiveCount
    vocab_size: int = Field(strict=True, gt=0, lt=2**31)


class Interval(Record):
    """A bootstrap interval (lower end, upper end) in each unit."""

    level: float
    n_resamples: int
    loss: tuple[Number, Number]
    bits_per_byte: tuple[Number, Number]
    bits_per_character: tuple[Number, Number]


class SplitEvaluation(Record):
    """A split. loss: nats per token. n_windows: number of windows evaluated, if not all."""

    loss: Number
    perplexity: Number
    bits_per_byte: Number
    bits_per_character: OptionalNumber = None
    n_tokens: int
    n_bytes: int
    n_characters: int | None = None
    interval: Interval | None = None
    n_windows: int | None = None


class PositionBucket(Record):
    """The loss at positions `first` to `last` of a window, nats per token."""

    first: int
    last: int
    loss: Number
    n_tokens: int


class KindOfToken(Record):
    """The loss on one kind of token, nats per token."""

    loss: Number
    n_tokens: int
    share_of_loss: Number


class CalibrationBin(Record):
    """The predictions whose most likely token has a probability in (low, high]."""

    low: float
    high: float
    confidence: Number
    accuracy: Number
    n_tokens: int


class Calibration(Record):
    """How often the most likely token is right, and how confident the model is in it."""

    accuracy: Number
    expected_calibration_error: Number
    bins: tuple[CalibrationBin, ...]


class CopiedShares(Record):
    """The share of a text's n-grams of 8, 16 and 32 tokens that occur in the training split."""

    n_tokens: int
    of_8: Number = Field(alias="8")
    of_16: Number = Field(alias="16")
    of_32: Number = Field(alias="32")


class CopyingSettings(Record):
    """The settings for generating the text that's searched for copies."""

    prompt_tokens: int
    num_samples: int
    max_new_tokens: int
    temperature: float
    top_k: int
    seed: int


class Copying(Record):
    """Copies of the training text in a generated text, and in the validation text (reference)."""

    settings: CopyingSettings
    n_tokens: int
    of_8: Number = Field(alias="8")
    of_16: Number = Field(alias="16")
    of_32: Number = Field(alias="32")
    reference: CopiedShares


class NanogptEstimate(Record):
    """nanoGPT's own estimate from random batches, nats per token, for comparison only."""

    train: Number
    val: Number
    eval_iters: int
    batch_size: int


class MixtureEvaluation(Record):
    """The GPT mixed with n-grams. weight and caution determine the n-grams' share.

    n_counted_tokens: of the training split. across_windows: an n-gram can start before the window
    that the GPT sees. within_windows: neither sees tokens before the window.
    """

    max_order: int
    weight: float
    caution: float
    n_counted_tokens: int
    across_windows: SplitEvaluation
    within_windows: SplitEvaluation


class SourceEvaluation(Record):
    """The entropy of a built-in corpus's source, and the model's distance from it."""

    bits_per_byte: float
    excess_bits_per_byte: Number
    excess_percent: Number


class Evaluation(Record):
    """eval.json of a run. All numbers are for the GPT alone, except those in `mixture`.

    mixture: the validation split for runs that mix the GPT with n-grams. copying: None if the
    model can't generate text.

    The oldest files have no by_position, by_kind, calibration and copying, and their splits have
    no numbers of characters and no interval.
    """

    run: str
    dataset: str
    val: SplitEvaluation
    train: SplitEvaluation
    by_position: tuple[PositionBucket, ...] | None = None
    by_kind: dict[str, KindOfToken] | None = None
    calibration: Calibration | None = None
    copying: Copying | None = None
    nanogpt_estimate: NanogptEstimate
    model: ModelSummary
    source: SourceEvaluation | None = None
    mixture: MixtureEvaluation | None = None
