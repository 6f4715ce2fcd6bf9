"""bench.json: how fast this machine trains a model and samples from it."""

from pydantic import Field

from nanogpt.artifacts.records.base import Number, Record
from nanogpt.artifacts.records.evaluations import ModelSummary


class Percentiles(Record):
    """Seconds: 10th percentile, median, 90th percentile."""

    p10: float
    median: float
    p90: float


class StepSeconds(Record):
    """Seconds of a step's parts, and of whole steps, which are timed separately.

    forward: including the loss. optimizer: including gradient clipping. step: including the draw
    of its batch.
    """

    forward: Percentiles
    backward: Percentiles
    optimizer: Percentiles
    step: Percentiles


class Generation(Record):
    """The speed of sampling, for all rows of a batch together."""

    batch_size: int
    dtype: str
    max_new_tokens: int
    tokens_per_second: float


class Benchmark(Record):
    """bench.json of a run.

    mfu: share of the machine's measured matrix product rate, with the faster library.
    peak_memory_bytes: up to the end of training. loss: of the last timed step, nats per token.
    matmul: the library for float32 products on a CPU. step_seconds: of a step, by library.
    """

    run: str
    dataset: str
    model: ModelSummary
    device: str
    dtype: str
    compile: bool
    threads: int
    batch_size: int
    data: str
    burn_in: int
    steps: int
    seconds: StepSeconds
    tokens_per_second: float
    flops_per_token: int
    flops_per_second: float
    gemm_flops_per_second: float
    mfu: float
    peak_memory_bytes: int
    loss: Number
    generation: Generation
    batch_generation: Generation
    matmul: str | None = None
    step_seconds: dict[str, float] = Field(default_factory=dict)
