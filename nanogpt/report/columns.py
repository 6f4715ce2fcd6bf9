"""The columns of runs.csv: name, heading, unit, meaning, and how the page writes each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nanogpt.report.formats import three_digits


@dataclass(frozen=True)
class Column:
    """A column of runs.csv: what it is, and how the page shows it, if it does."""

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
    Column("status", "status", "", "finished, diverged, or how far it got"),
    Column("group", "group", "", "name shared by runs that differ only in their seed"),
    Column("seed", "seed", "", "train.seed"),
    Column("dataset", "dataset", "", "name of the dataset", str),
    Column("val_bits_per_byte", "bits per byte", "bits per byte",
           "of the validation split; compares across tokenizers", _4),
    Column("excess_over_source_percent", "over entropy (%)", "%",
           "bits per byte above the entropy of a built-in corpus's source", _1),
    Column("ngram_bits_per_byte", "n-grams (bits per byte)", "bits per byte",
           "of the best Kneser-Ney model of orders 1 to 5 on the same split", _4),
    Column("val_loss_nats_per_token", "val loss (nats/token)", "nats per token",
           "of the whole validation split, by the GPT alone", _4),
    Column("val_loss_low", "", "nats per token", "lower end of its bootstrap interval, 95 %"),
    Column("val_loss_high", "", "nats per token", "upper end"),
    Column("mixture_loss_nats_per_token", "GPT with n-grams: val loss (nats/token)",
           "nats per token", "of the GPT mixed with n-grams, which may reach back before it", _4),
    Column("mixture_within_windows_loss_nats_per_token",
           "GPT with n-grams: val loss, cold windows (nats/token)", "nats per token",
           "the same where n-grams see no more than the GPT; compares with the GPT's own loss", _4),
    Column("mixture_bits_per_byte", "", "bits per byte",
           "of the GPT mixed with n-grams, which may begin before the GPT's window"),
    Column("train_loss_nats_per_token", "train loss (nats/token)", "nats per token",
           "of as many windows of the training split", _4),
    Column("val_perplexity_per_token", "perplexity", "1", "e to the validation loss, per token",
           "{:.2f}".format),
    Column("val_bits_per_character", "", "bits per character", "of the validation split"),
    Column("calibration_error_percent", "calibration error (%)", "%",
           "expected calibration error of the likeliest token", _1),
    Column("copied_16grams_percent", "16-grams copied (%)", "%",
           "of a generated text, that are also in the training split", _1),
    Column("parameters", "parameters", "1", "numbers learned, embeddings included", three_digits),
    Column("tokens_seen", "tokens seen", "tokens", "steps times tokens of a step", three_digits),
    Column("steps", "steps", "1", "optimizer steps", _whole),
    Column("training_flops", "training (FLOPs)", "FLOPs",
           "tokens seen times FLOPs per token of docs/FORMULAS.md", three_digits),
    Column("training_seconds", "training time (s)", "s", "with its evaluations", _whole),
    Column("tokens_per_second", "speed (tokens/s)", "tokens per second",
           "in training; median over the lines of metrics.jsonl", _whole),
    Column("bench_tokens_per_second", "", "tokens per second",
           "in training, measured by bench alone on the machine"),
    Column("mfu_percent", "MFU (%)", "%",
           "share of the machine's measured rate of matrix products", _1),
    Column("sampling_tokens_per_second", "sampling (tokens/s)", "tokens per second",
           "one stream, measured by bench", _whole),
    Column("peak_memory_bytes", "", "bytes", "of the process that ran bench"),
    Column("diverged", "", "", "whether a loss wasn't a number"),
)  # fmt: skip
