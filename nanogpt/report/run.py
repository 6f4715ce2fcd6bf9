"""A run as the report knows it: its settings, metrics, evaluation, benchmark and sample."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from nanogpt.config.schema import ModelSettings
from nanogpt.model.sizing import flops_per_token


@dataclass(frozen=True)
class Run:
    """What is known of a run; what it has not got yet is None or empty."""

    name: str
    dataset: str = ""
    # finished, diverged, training, stopped, failed, not evaluated or damaged: docs/REPORT.md
    status: str = "finished"
    note: str = ""  # why it is not finished
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    settings: Mapping[str, Any] = field(default_factory=dict)  # `group.name`: value
    environment: Mapping[str, Any] = field(default_factory=dict)  # of its training
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    ngram: Mapping[str, Any] = field(default_factory=dict)
    bench: Mapping[str, Any] = field(default_factory=dict)
    vocab_size: int | None = None
    sample: str | None = None
    group: str = ""  # the name that runs share which differ in their seed only

    @cached_property
    def model(self) -> ModelSettings | None:
        """Its architecture, if a manifest or state tells it."""
        told = {
            name.removeprefix("model."): value
            for name, value in self.settings.items()
            if name.startswith("model.")
        }
        return ModelSettings(**told) if told else None

    @property
    def flops_per_token(self) -> float:
        """FLOPs of a token in training; NaN if the model is not known."""
        if self.model is None or self.vocab_size is None:
            return math.nan
        return float(flops_per_token(self.model, self.vocab_size))

    @property
    def training_flops(self) -> float:
        """FLOPs of all its training so far."""
        tokens = self.metrics["tokens"].iloc[-1] if len(self.metrics) else math.nan
        return float(tokens) * self.flops_per_token

    @property
    def source_loss(self) -> float:
        """The entropy of a built-in corpus in nats per token of the validation split, or NaN."""
        source, val = self.evaluation.get("source"), self.evaluation.get("val")
        if not source or not val:
            return math.nan
        nats_per_byte: float = source["bits_per_byte"] * math.log(2)
        return nats_per_byte * float(val["n_bytes"] / val["n_tokens"])

    @property
    def ngram_best(self) -> Mapping[str, Any]:
        """The n-gram model of its dataset with the lowest loss."""
        orders = self.ngram.get("orders", [])
        return min(orders, key=lambda order: order["loss"]) if orders else {}


def natural_order(name: str) -> list[Any]:
    """A key that puts run-10 after run-9."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
