"""The columns of runs.csv: name, heading, unit, meaning, and number format on the page."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nanogpt.report.formats import three_digits


@dataclass(frozen=True)
class Column:
    """A column of runs.csv. form: formats it for the page; None: the page leaves it out."""

    name: str
    heading: str
    unit: str
    meaning: str
    form: Callable[[Any], str] | None = None


_4 = "{:.4f}".format
_1 = "{:.1f}".format
_whole = "{:,.0f}".format

COLUMNS = (
    Column("run", "run", "", "name of the run", str),
    Column("status", "status", "", "finished, diverged, or the stage it reached"),
    Column("group", "group", "", "name shared by runs that differ only in their seed"),
    Column("seed", "seed", "", "train.seed"),
    Column("dataset", "dataset", "", "name of the dataset", str),
    Column("val_bits_per_byte", "bits per byte", "bits per byte",
           "on the validation split; comparable across tokenizers", _4),
    Column("excess_over_source_percent", "over entropy (%)", "%",
           "bits per byte above the entropy of the built-in corpus", _1),
    Column("ngram_bits_per_byte", "n-grams (bits per byte)", "bits per byte",
           "of the best Kneser-Ney model (orders 1 to 5) on the same split", _4),
    Column("val_loss_nats_per_token", "val loss (nats/token)", "nats per token",
           "of the GPT alone on the whole validation split", _4),
    Column("val_loss_low", "", "nats per token",
           "lower end of the validation loss's 95 % bootstrap interval"),
    Column("val_loss_high", "", "nats per token", "upper end of that interval"),
    Column("mixture_loss_nats_per_token", "GPT with n-grams: val loss (nats/token)",
           "nats per token",
           "of the GPT mixed with n-grams, which can look back past the GPT's window", _4),
    Column("mixture_within_windows_loss_nats_per_token",
           "GPT with n-grams: val loss, cold windows (nats/token)", "nats per token",
           "the same, with n-grams limited to the GPT's window; comparable with the GPT's own loss",
           _4),
    Column("mixture_bits_per_byte", "", "bits per byte",
           "of the GPT mixed with n-grams, which can look back past the GPT's window"),
    Column("train_loss_nats_per_token", "train loss (nats/token)", "nats per token",
           "on the same number of windows of the training split", _4),
    Column("val_perplexity_per_token", "perplexity", "1",
           "e to the power of the validation loss, per token", "{:.2f}".format),
    Column("val_bits_per_character", "", "bits per character", "on the validation split"),
    Column("calibration_error_percent", "calibration error (%)", "%",
           "expected calibration error of the likeliest token", _1),
    Column("copied_16grams_percent", "16-grams copied (%)", "%",
           "of a generated text's 16-grams, found in the training split", _1),
    Column("parameters", "parameters", "1", "learned numbers, including embeddings", three_digits),
    Column("tokens_seen", "tokens seen", "tokens", "steps times tokens per step", three_digits),
    Column("steps", "steps", "1", "optimizer steps", _whole),
    Column("training_flops", "training (FLOPs)", "FLOPs",
           "tokens seen times FLOPs per token (docs/FORMULAS.md)", three_digits),
    Column("training_seconds", "training time (s)", "s", "including evaluations", _whole),
    Column("tokens_per_second", "speed (tokens/s)", "tokens per second",
           "of training; median over the lines of metrics.jsonl", _whole),
    Column("bench_tokens_per_second", "", "tokens per second",
           "of training, from a benchmark with the machine to itself"),
    Column("mfu_percent", "MFU (%)", "%",
           "share of the machine's measured matrix product speed", _1),
    Column("sampling_tokens_per_second", "sampling (tokens/s)", "tokens per second",
           "of one stream, from the benchmark", _whole),
    Column("peak_memory_bytes", "", "bytes", "of the benchmark's process"),
    Column("diverged", "", "", "whether any loss was NaN or infinite"),
)  # fmt: skip
