"""A run in a report: its settings, metrics, evaluation, benchmark and sample."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pandas as pd
from pydantic import JsonValue

from nanogpt.artifacts.records.benchmarks import Benchmark
from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.artifacts.records.manifests import Environment
from nanogpt.artifacts.records.ngrams import NgramEvaluation
from nanogpt.config.schema import ModelSettings
from nanogpt.model.sizing import flops_per_token, n_parameters

# docs/REPORT.md explains each.
Status = Literal[
    "finished", "diverged", "training", "stopped", "failed", "not evaluated", "damaged"
]


@dataclass(frozen=True)
class Run:
    """Everything known about a run. Missing parts are None or empty."""

    name: str
    dataset: str = ""
    status: Status = "finished"
    note: str = ""  # why it isn't finished
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)  # as in metrics_table.Metrics
    settings: Mapping[str, JsonValue] = field(default_factory=dict)  # `group.name`: value
    model: ModelSettings | None = None
    vocab_size: int | None = None
    environment: Environment | None = None  # of its training
    evaluation: Evaluation | None = None
    ngram: NgramEvaluation | None = None
    bench: Benchmark | None = None
    sample: str | None = None
    group: str = ""  # a name shared by runs that differ only in their seed

    @cached_property
    def n_parameters(self) -> int | None:
        """The number of learned numbers, including embeddings."""
        if self.evaluation:
            return self.evaluation.model.n_parameters
        if self.model and self.vocab_size:
            return n_parameters(self.model, self.vocab_size)
        return None

    @cached_property
    def flops_per_token(self) -> float:
        """FLOPs per token of training; NaN if the model isn't known."""
        if self.model is None or self.vocab_size is None:
            return math.nan
        return float(flops_per_token(self.model, self.vocab_size))

    @property
    def tokens_seen(self) -> float:
        """Tokens trained on so far; NaN before there are metrics."""
        return float(self.metrics["tokens"].iloc[-1]) if len(self.metrics) else math.nan

    @property
    def training_flops(self) -> float:
        """FLOPs of all training so far."""
        return self.tokens_seen * self.flops_per_token

    @property
    def val_loss(self) -> float:
        """Nats per token on the whole validation split; NaN if the run wasn't evaluated."""
        return self.evaluation.val.loss if self.evaluation else math.nan

    @property
    def source_loss(self) -> float:
        """A built-in corpus's entropy in nats per token of the validation split; else NaN."""
        if self.evaluation is None or self.evaluation.source is None:
            return math.nan
        val = self.evaluation.val
        nats_per_byte = self.evaluation.source.bits_per_byte * math.log(2)
        return nats_per_byte * (val.n_bytes / val.n_tokens)


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts run-10 after run-9."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
