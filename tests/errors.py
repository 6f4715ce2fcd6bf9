"""The mistakes that users make, each with the line that they see; docs/ERRORS.md is made of them.

    python tests/errors.py > docs/ERRORS.md

Each mistake is really made: in an empty directory, with real files, by the function or command that
a user's mistake reaches. tests/test_errors.py makes them all.
"""

import contextlib
import gzip
import io
import json
import logging
import os
import pickle
import re
import shlex
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pytest
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from nanogpt.artifacts import states as state
from nanogpt.artifacts.manifests import digests, version
from nanogpt.artifacts.stages import logged
from nanogpt.artifacts.states import Held
from nanogpt.cli.main import main
from nanogpt.config.loading import load, read
from nanogpt.config.schema import Corpus, Dataset, EvalSettings, ModelSettings, TrainSettings
from nanogpt.data.preparing import count, encode, merge, prepare
from nanogpt.data.sources import find_files
from nanogpt.data.tokenizers import CharTokenizer, char_tokenizer
from nanogpt.errors import UserError
from nanogpt.evaluation.evaluate import evaluate
from nanogpt.files import downloads as download
from nanogpt.files import locks as lock
from nanogpt.files.downloads import fetch
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.report import page as report
from nanogpt.report import runs as results
from nanogpt.training.loop import train
from nanogpt.training.saved_state import Progress, save_state

ROOT = Path(__file__).resolve().parent.parent

# What a mistake must never make: code in a file was executed.
EXECUTED = Path("executed")

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen.\n" * 4
BOOK = Path("results/datasets/book")
MODEL = Path("results/demo/model")
WEIGHTS = MODEL / "model.safetensors"
TINY = ModelSettings(n_layer=1, n_head=1, n_embd=4, block_size=8, dropout=0)


@dataclass(frozen=True)
class Mistake:
    """A mistake and what is said.

    title: what is wrong, in a few words. shown: how a user makes it, as Markdown. make: makes it
    in the current directory, which is empty, by raising UserError or SystemExit, or by returning
    the line that was printed. message: that line, without `error: `; HOST stands for a server's
    name and port. impossible: whether this machine cannot make it.
    """

    title: str
    shown: str
    make: Callable[[], object]
    message: str
    impossible: Callable[[], bool] = lambda: False


# A Latin-1 é on a command line, in bash's notation.
NO_UTF8 = r"$'caf\xe9'"


def code(text: str) -> str:
    """A span of code in a cell of a Markdown table."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def write_files(contents: Mapping[str, bytes | str]) -> None:
    for name, content in contents.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def in_turn(*steps: Callable[[], object]) -> Callable[[], None]:
    """All of these, one after the other."""

    def make() -> None:
        for step in steps:
            step()

    return make


def command(
    title: str,
    line: str,
    message: str,
    before: Callable[[], object] = lambda: None,
    impossible: Callable[[], bool] = lambda: False,
) -> Mistake:
    """A command that is typed. before: what is there when it is."""

    def make() -> None:
        before()
        main(shlex.split(line.replace(NO_UTF8, "caf\udce9")))

    return Mistake(title, code(f"nanogpt {line}"), make, message, impossible)


# --- Settings -------------------------------------------------------------------------------

BASE = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
models: {tiny: {n_layer: 1, n_head: 2, n_embd: 4, block_size: 8}}
runs: {first: {dataset: letters}}
"""


def config_file(title: str, shown: str, content: bytes, message: str) -> Mistake:
    """A config.yaml that is none."""

    def make() -> None:
        write_files({"config.yaml": content})
        read()

    return Mistake(title, shown, make, message)


def setting(title: str, text: str, message: str) -> Mistake:
    """Wrong settings: BASE with the top-level keys of `text` put in or replaced."""
    return Mistake(
        title,
        code(text),
        lambda: load({**yaml.safe_load(BASE), **yaml.safe_load(text)}),
        message,
    )


def dropped_text(title: str, name: str, message: str) -> Mistake:
    """A text in resources/texts/ whose name will not do."""
    file = f"resources/texts/{name}.txt"

    def make() -> None:
        write_files({"config.yaml": BASE, file: TEXT})
        read()

    return Mistake(title, code(file), make, message)


CONFIG_FILES = [
    command(
        "a config file that is not there",
        "config first",
        "config.yaml: no such file; run this in the project's directory",
    ),
    Mistake(
        "a directory in the place of the config file",
        "`config.yaml/`",
        in_turn(Path("config.yaml").mkdir, read),
        "config.yaml: cannot be read: Is a directory",
    ),
    config_file(
        "a list in the place of settings",
        code("- runs"),
        b"- runs",
        "config.yaml: a mapping with `runs:` and the like is wanted at top level",
    ),
    config_file(
        "a bracket that is not closed",
        code("runs: {first: {}"),
        b"runs: {first: {}",
        "config.yaml: line 1, column 17: not YAML: expected ',' or '}', but got '<stream end>'",
    ),
    config_file(
        "a tab in YAML",
        "`runs:` and, in the next line, a tab",
        b"runs:\n\tfirst: {}\n",
        "config.yaml: line 2, column 1: not YAML: found character '\\t' that cannot "
        "start any token",
    ),
    config_file(
        "a config file in Latin-1",
        code("# für später") + " in Latin-1",
        "# für später".encode("latin-1"),
        "config.yaml: not UTF-8 (byte 0xfc at 3); save it as UTF-8",
    ),
    config_file(
        "a key given twice",
        "`runs:` in line 1 and again in line 3",
        b"runs: {first: {}}\ntrain: {seed: 1}\nruns: {second: {}}\n",
        "config.yaml: line 3: `runs` stands in line 1 already; put both into one",
    ),
    config_file(
        "a setting given twice",
        code("train: {seed: 1, seed: 2}"),
        b"train: {seed: 1, seed: 2}",
        "config.yaml: line 1: `seed` stands in line 1 already; put both into one",
    ),
    config_file(
        "a date that there is not",
        code("runs: {2024-13-45: {}}"),
        b"runs: {2024-13-45: {}}",
        "config.yaml: no date that there is: month must be in 1..12; put it in quotes",
    ),
    config_file(
        "brackets without end",
        "5,000 of `[`",
        b"[" * 5000,
        "config.yaml: not a config file: nested too deeply",
    ),
    config_file(
        "code in YAML",
        code("runs: !!python/object/apply:os.mkdir [executed]"),
        b"runs: !!python/object/apply:os.mkdir [executed]",
        "config.yaml: line 1, column 7: not YAML: could not determine a constructor "
        "for the tag 'tag:yaml.org,2002:python/object/apply:os.mkdir'",
    ),
]

SETTINGS = [
    setting(
        "a misspelt setting",
        "train: {max_iter: 3}",
        "train.max_iter: unknown setting; did you mean `max_iters`?",
    ),
    setting(
        "a misspelt group",
        "runs: {first: {trian: {max_iters: 3}}}",
        "runs.first.trian: unknown setting; did you mean `train`?",
    ),
    setting(
        "a setting that there is not",
        "zzz: 1",
        "zzz: unknown setting; there is `model`, `train`, `eval`, `sample`, `bench`, "
        "`corpora`, `datasets`, `models`, `runs`, `defaults`, `report`, `mirrors`",
    ),
    setting(
        "a preset in a preset",
        "models: {small: {preset: tiny}}",
        "models.small.preset: unknown setting; there is `n_layer`, `n_head`, "
        "`n_embd`, `block_size`, `dropout`, `bias`, `position`, `activation`",
    ),
    setting(
        "several mistakes at once",
        "train: {max_iter: 1, beta3: 1}",
        "train.max_iter: unknown setting; did you mean `max_iters`? (and 1 more)",
    ),
    setting(
        "a word for a number",
        "models: {tiny: {n_layer: four}}",
        "models.tiny.n_layer: should be a valid integer, unable to parse string as an"
        " integer (found 'four')",
    ),
    setting(
        "a fraction for a count",
        "models: {tiny: {n_layer: 2.5}}",
        "models.tiny.n_layer: should be a valid integer, got a number with a "
        "fractional part (found 2.5)",
    ),
    setting(
        "yes for a number",
        "models: {tiny: {n_layer: yes}}",
        "models.tiny.n_layer: a number is wanted here, not yes or no (found yes)",
    ),
    setting(
        "a number for yes or no",
        "models: {tiny: {bias: 2}}",
        "models.tiny.bias: should be a valid boolean, unable to interpret input (found 2)",
    ),
    setting(
        "nothing for a number",
        "train: {max_iters: null}",
        "train.max_iters: should be a valid integer (found nothing)",
    ),
    setting(
        "a list for a number",
        "train: {max_iters: [3]}",
        "train.max_iters: should be a valid integer (found [3])",
    ),
    setting(
        "a number for a prompt",
        "sample: {start: 5}",
        "sample.start: should be text; put it in quotes (found 5)",
    ),
    setting(
        "a word for a list",
        "report: {runs: first}",
        "report.runs: should be a valid list (found 'first')",
    ),
    setting(
        "a list of runs", "runs: [first]", "runs: should be a mapping of settings (found [first])"
    ),
    setting(
        "a corpus with nothing in it",
        "corpora: {text: }",
        "corpora.text: should be a mapping of settings (found nothing)",
    ),
    setting(
        "a number for a name",
        "runs: {2024: {dataset: letters}}",
        "runs.2024: should be text; put it in quotes (found 2024)",
    ),
    setting(
        "no layers",
        "models: {tiny: {n_layer: 0}}",
        "models.tiny.n_layer: should be greater than or equal to 1 (found 0)",
    ),
    setting(
        "a dropout of one",
        "models: {tiny: {dropout: 1}}",
        "models.tiny.dropout: should be less than 1 (found 1)",
    ),
    setting(
        "a learning rate of zero",
        "train: {learning_rate: 0}",
        "train.learning_rate: should be greater than 0 (found 0)",
    ),
    setting(
        "not a number",
        "train: {learning_rate: .nan}",
        "train.learning_rate: should be a finite number (found nan)",
    ),
    setting(
        "infinity",
        "train: {grad_clip: .inf}",
        "train.grad_clip: should be a finite number (found inf)",
    ),
    setting("a beta of one", "train: {beta2: 1}", "train.beta2: should be less than 1 (found 1)"),
    setting(
        "a negative seed",
        "train: {seed: -1}",
        "train.seed: should be greater than or equal to 0 (found -1)",
    ),
    setting(
        "a seed beyond 63 bits",
        "train: {seed: 9223372036854775808}",
        "train.seed: should be less than 9223372036854775808 (found 9223372036854775808)",
    ),
    setting(
        "everything held out",
        "datasets: {letters: {corpus: text, val_ratio: 1}}",
        "datasets.letters.val_ratio: should be less than 1 (found 1)",
    ),
    setting(
        "fewer tokens than bytes",
        "datasets: {text: {tokenizer: bpe, vocab_size: 256}}",
        "datasets.text.vocab_size: should be greater than or equal to 257 (found 256)",
    ),
    setting(
        "a temperature of zero",
        "sample: {temperature: 0}",
        "sample.temperature: should be greater than or equal to 0.000001 (found 0)",
    ),
    setting(
        "a negative top_k",
        "sample: {top_k: -1}",
        "sample.top_k: should be greater than or equal to 0 (found -1)",
    ),
    setting(
        "an empty prompt",
        "sample: {start: ''}",
        "sample.start: string should have at least 1 character (found '')",
    ),
    setting(
        "an unknown dtype",
        "train: {dtype: float16}",
        "train.dtype: should be 'auto', 'float32' or 'bfloat16' (found 'float16')",
    ),
    setting(
        "an unknown device",
        "train: {device: gpu}",
        "train.device: should be auto, cpu, mps, cuda or cuda:N (found 'gpu')",
    ),
    setting(
        "an unknown activation",
        "models: {tiny: {activation: relu}}",
        "models.tiny.activation: should be 'gelu' or 'gelu_tanh' (found 'relu')",
    ),
    setting(
        "an unknown choice of weights",
        "train: {keep: all}",
        "train.keep: should be 'best' or 'last' (found 'all')",
    ),
    setting(
        "an unknown split",
        "datasets: {text: {split: random}}",
        "datasets.text.split: should be 'auto', 'position' or 'document' (found 'random')",
    ),
    setting(
        "an unknown tokenizer",
        "datasets: {text: {tokenizer: word}}",
        "datasets.text.tokenizer: no tokenizer or dataset `word`; there is `char`, "
        "`bpe`, `gpt2`, `byte`, `text`",
    ),
    setting(
        "a dataset's own tokenizer",
        "datasets: {text: {tokenizer: text}}",
        "datasets.text.tokenizer: a circle: text -> text; give one of them char, bpe, gpt2 or byte",
    ),
    setting(
        "tokenizers in a circle",
        "datasets: {one: {corpus: text, tokenizer: two}, two: {corpus: text, tokenizer: one}}",
        "datasets.one.tokenizer: a circle: one -> two -> one; give one of them char, "
        "bpe, gpt2 or byte",
    ),
    setting(
        "an unknown corpus",
        "datasets: {letters: {corpus: texd}}",
        "datasets.letters.corpus: no corpus `texd`; did you mean `text`?",
    ),
    setting(
        "a dataset without a corpus",
        "datasets: {texts: {}}",
        "datasets.texts.corpus: no corpus `texts`; did you mean `text`?",
    ),
    setting(
        "an unknown dataset",
        "runs: {first: {dataset: leters}}",
        "runs.first.dataset: no dataset `leters`; did you mean `letters`?",
    ),
    setting(
        "an unknown model",
        "runs: {first: {dataset: letters, model: tinny}}",
        "runs.first.model: no model `tinny`; did you mean `tiny`?",
    ),
    setting(
        "an unknown run in the report",
        "report: {runs: [fist]}",
        "report.runs: no run `fist`; did you mean `first`?",
    ),
    setting(
        "a run twice in the report",
        "report: {runs: [first, first]}",
        "report.runs: `first` stands there twice; name it once",
    ),
    setting(
        "a run that leaves its directory",
        "runs: {../x: {dataset: letters}}",
        "runs: `../x` is no name; letters, digits, dot, dash and underscore make a "
        "name that begins with a letter or digit",
    ),
    setting(
        "a dataset that leaves its directory",
        "datasets: {../x: {corpus: text}}",
        "datasets: `../x` is no name; letters, digits, dot, dash and underscore make "
        "a name that begins with a letter or digit",
    ),
    setting(
        "a name with a space",
        "corpora: {my book: {files: book.txt}}",
        "corpora: `my book` is no name; letters, digits, dot, dash and underscore "
        "make a name that begins with a letter or digit",
    ),
    setting(
        "a reserved name",
        "runs: {report: {dataset: letters}}",
        "runs: `report` is a reserved name; call the run something else",
    ),
    setting(
        "a dataset called as a tokenizer",
        "datasets: {byte: {corpus: text}}",
        "datasets: `byte` is a tokenizer; call the dataset something else",
    ),
    setting(
        "heads that do not divide the width",
        "model: {n_head: 3, n_embd: 10}",
        "runs.first.model: n_embd 10 is not divisible by n_head 3; change one of them",
    ),
    setting(
        "rotary positions of an odd width",
        "model: {position: rotary, n_head: 2, n_embd: 6}",
        "runs.first.model: rotary positions turn pairs, but n_embd 6 / n_head 2 is "
        "odd; change one of them",
    ),
    setting(
        "a min_lr above the learning rate",
        "train: {learning_rate: 1e-5}",
        "runs.first.train: min_lr 0.0001 is above learning_rate 1e-05; lower it",
    ),
    setting(
        "a warm-up of all steps",
        "train: {warmup_iters: 50, max_iters: 50}",
        "runs.first.train: warmup_iters 50 leaves no step for the decay, which ends "
        "at 50; lower it",
    ),
    setting(
        "a milestone after the last step",
        "train: {max_iters: 500, milestones: [100, 600]}",
        "runs.first.train: milestones: step 600 comes after max_iters 500; leave it "
        "out, or raise max_iters",
    ),
    setting(
        "a corpus without a source",
        "corpora: {text: {encoding: utf-8}}",
        "corpora.text: a corpus has exactly one of url, files and builtin",
    ),
    setting(
        "a corpus of two sources",
        "corpora: {text: {files: text.txt, builtin: playwright}}",
        "corpora.text: a corpus has exactly one of url, files and builtin",
    ),
    setting(
        "a URL of FTP",
        "corpora: {text: {url: 'ftp://example.org/book.txt'}}",
        "corpora.text.url: `ftp://example.org/book.txt` is no URL of a file; "
        "http(s)://host/path is wanted",
    ),
    setting(
        "a URL of no file",
        "corpora: {text: {url: 'https://example.org/'}}",
        "corpora.text.url: `https://example.org/` is no URL of a file; "
        "http(s)://host/path is wanted",
    ),
    setting(
        "a range that falls",
        "corpora: {text: {url: 'https://example.org/[2-1].txt'}}",
        "corpora.text.url: `https://example.org/[2-1].txt`: a range begins with its lowest number",
    ),
    setting(
        "two URLs of one name",
        "corpora: {text: {url: ['https://example.org/a/x.txt', 'https://example.org/b/x.txt']}}",
        "corpora.text: two of its URLs end in the same name of a file; one would be lost",
    ),
    setting(
        "a short sha256",
        "corpora: {text: {files: text.txt, sha256: abc}}",
        "corpora.text.sha256: should be 64 hex digits in lower case (found 'abc')",
    ),
    setting(
        "a sha256 of digits alone",
        f"corpora: {{text: {{files: text.txt, sha256: {64 * '1'}}}}}",
        "corpora.text.sha256: should be text; put it in quotes (found "
        "1111111111111111111111111111111111111111111111111111111111111111)",
    ),
    setting(
        "a name that YAML takes for no",
        "runs: {first: {dataset: no}}",
        "runs.first.dataset: should be text; put it in quotes (found no)",
    ),
    setting(
        "a list of many things for a number",
        f"train: {{max_iters: {list(range(100))}}}",
        "train.max_iters: should be a valid integer (found [0, 1, 2, 3, 4, 5, 6, 7, "
        "8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2…)",
    ),
    setting(
        "a dataset with a reserved name",
        "datasets: {gpt2: {corpus: text}}",
        "datasets: `gpt2` is a reserved name; call the dataset something else",
    ),
    setting(
        "a sha256 of several files",
        f"corpora: {{text: {{files: [a.txt, b.txt], sha256: {64 * 'a'}}}}}",
        "corpora.text: a sha256 is of one file, and these are several; leave it out",
    ),
    setting(
        "an unknown encoding",
        "corpora: {text: {files: text.txt, encoding: utf-9}}",
        "corpora.text.encoding: `utf-9` is no encoding that Python knows; did you mean `utf_8`?",
    ),
    setting(
        "an unknown kind of newlines",
        "corpora: {text: {files: text.txt, newlines: crlf}}",
        "corpora.text.newlines: should be 'keep' or 'lf' (found 'crlf')",
    ),
    dropped_text(
        "a text called as a run",
        "first",
        "resources/texts/first.txt: config.yaml has a run, dataset or corpus `first` "
        "as well; rename the text",
    ),
    dropped_text(
        "a text with a reserved name",
        "gpt2",
        "resources/texts/gpt2.txt: `gpt2` is a reserved name; rename the text",
    ),
    dropped_text(
        "a text with a space in its name",
        "my book",
        "resources/texts/my book.txt: `my book` is no name; letters, digits, dot, "
        "dash and underscore make a name that begins with a letter or digit; rename "
        "the text",
    ),
]

# --- Sweeps ---------------------------------------------------------------------------------


def sweep(title: str, swept: str, message: str) -> Mistake:
    """A run `r` with this sweep."""
    return setting(title, f"runs: {{r: {{dataset: letters, sweep: {swept}}}}}", message)


SWEEPS = [
    command(
        "a sweep in the place of a run",
        "config sizes",
        "runs: `sizes` is a sweep; its runs are `sizes.seed-1`, `sizes.seed-2`, `sizes.seed-3` and "
        "1 more",
        lambda: write_files(
            {"config.yaml": BASE.replace("first: {", "sizes: {sweep: {seed: [1, 2, 3, 4]}, ")}
        ),
    ),
    sweep(
        "a sweep of nothing",
        "{}",
        "runs.r.sweep: nothing is swept; name settings and their values, or leave it out",
    ),
    sweep(
        "a misspelt setting in a sweep",
        "{train.learning_rat: [1e-3]}",
        "runs.r.sweep.train.learning_rat: unknown setting; did you mean `train.learning_rate`?",
    ),
    sweep(
        "a setting of a sweep without its group",
        "{dtype: [float32, bfloat16]}",
        "runs.r.sweep.dtype: unknown setting; did you mean `train.dtype` or `eval.dtype` or "
        "`sample.dtype`?",
    ),
    sweep(
        "a setting that there is not, in a sweep",
        "{zzz: [1]}",
        "runs.r.sweep.zzz: unknown setting; a setting is named with its group: `train.max_iters`",
    ),
    sweep(
        "one value in the place of a list",
        "{seed: 3}",
        "runs.r.sweep.seed: should be a valid list (found 3)",
    ),
    sweep(
        "a list without values",
        "{seed: []}",
        "runs.r.sweep.seed: no value; give it some, or leave it out",
    ),
    sweep(
        "lists among the values of a sweep",
        "{train.milestones: [[5], [10]]}",
        "runs.r.sweep.train.milestones: a list or mapping cannot be swept (found [5]); write such "
        "runs one by one",
    ),
    sweep(
        "a value of a sweep that is out of range",
        "{model.dropout: [0, 1]}",
        "runs.r.sweep.model.dropout: should be less than 1 (found 1)",
    ),
    sweep(
        "a word for a number in a sweep",
        "{model.n_layer: [one, two]}",
        "runs.r.sweep.model.n_layer: should be a valid integer, unable to parse string as an "
        "integer (found 'one')",
    ),
    sweep(
        "an unknown model in a sweep",
        "{model: [tinny]}",
        "runs.r.sweep.model: no model `tinny`; did you mean `tiny`?",
    ),
    sweep(
        "an unknown dataset in a sweep",
        "{dataset: [leters]}",
        "runs.r.sweep.dataset: no dataset `leters`; did you mean `letters`?",
    ),
    sweep(
        "a value twice in a sweep",
        "{seed: [1, 2, 1]}",
        "runs.r.sweep.seed: `1` stands there twice; name it once",
    ),
    sweep(
        "a number twice in a sweep, written in two ways",
        "{train.learning_rate: [1e-3, 0.001]}",
        "runs.r.sweep.train.learning_rate: `0.001` stands there twice, as `1e-3` too; name it once",
    ),
    sweep(
        "a setting of a sweep by both of its names",
        "{seed: [1, 2], train.seed: [3, 4]}",
        "runs.r.sweep.train.seed: `seed` is the same setting; leave one of them out",
    ),
    sweep(
        "a value of a sweep that no name can have",
        "{sample.start: [Once upon]}",
        "runs.r.sweep.sample.start: `Once upon` cannot stand in the name of a run, which has "
        "letters, digits, dot, dash and underscore; write such runs one by one",
    ),
    sweep(
        "heads that do not divide the width, in a sweep",
        "{model.n_embd: [8], model.n_head: [2, 3]}",
        "runs.r.n_embd-8.n_head-3.model: n_embd 8 is not divisible by n_head 3; change one of them",
    ),
    sweep(
        "a value of a sweep too long for a name",
        f"{{sample.start: [{193 * 'a'}]}}",
        f"runs.r.sweep: the name of a run, `r.start-{72 * 'a'}…`, would have 201 characters, and "
        "200 are the most; shorten the names in it, or sweep fewer settings",
    ),
    setting(
        "a run called as one of a sweep",
        "runs: {r: {dataset: letters, sweep: {seed: [1, 2]}}, r.seed-2: {dataset: letters}}",
        "runs.r.sweep: one of its runs would be called `r.seed-2`, as another run, dataset or text "
        "is; rename one of them",
    ),
    setting(
        "two runs of a sweep with one name",
        "{datasets: {a: {corpus: text}, a.model-b: {corpus: text}}, models: {b.model-c: {}, c: {}},"
        " runs: {r: {sweep: {dataset: [a, a.model-b], model: [b.model-c, c]}}}}",
        "runs.r.sweep: two of its runs would be called `r.dataset-a.model-b.model-c`; put its keys "
        "in another order, or rename a value",
    ),
    setting(
        "a run and its sweep in the report",
        "{runs: {r: {dataset: letters, sweep: {seed: [1, 2]}}}, report: {runs: [r, r.seed-2]}}",
        "report.runs: `r.seed-2` stands there twice, as a run of `r` too; name it once",
    ),
]

# --- Texts ----------------------------------------------------------------------------------


def prepare_book(
    contents: Mapping[str, bytes | str], corpus: Mapping[str, object], **dataset: object
) -> None:
    """Prepare a dataset `book` of some files, the first one its corpus unless `corpus` names it."""
    write_files(contents)
    settings = Corpus.model_validate({"files": list(contents)[:1], **corpus})
    prepare(find_files("book", settings), settings, Dataset.model_validate(dataset), BOOK)


def text(
    title: str,
    shown: str,
    content: bytes | str,
    message: str,
    *,
    name: str = "book.txt",
    dataset: Mapping[str, object] | None = None,
    **corpus: object,
) -> Mistake:
    """A file of a corpus that is no text that can be read. corpus, dataset: their settings."""
    return Mistake(
        title, shown, lambda: prepare_book({name: content}, corpus, **(dataset or {})), message
    )


def absent(title: str, files: str, message: str, *there: str) -> Mistake:
    """Files of a corpus that are not found. there: files that are."""
    return Mistake(
        title,
        code(f"corpora: {{book: {{files: {files}}}}}"),
        lambda: prepare_book(dict.fromkeys(there, TEXT), {"files": files}),
        message,
    )


def parquet_bytes(columns: Mapping[str, list[object]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(columns)), file)
    return file.getvalue()


def link_to_nothing() -> None:
    write_files({"texts/a.txt": TEXT})
    Path("texts/b.txt").symlink_to("nowhere.txt")
    prepare_book({}, {"files": ["texts"]})


def edit_while_prepared() -> None:
    write_files({"book.txt": TEXT})
    corpus, dataset = Corpus(files=["book.txt"]), Dataset()
    counts = count([Path("book.txt")], corpus)
    plan, tokenizer = merge([counts], corpus, dataset)
    write_files({"book.txt": TEXT + TEXT})
    encode(counts, plan, 0, tokenizer, corpus, dataset, BOOK)


def workflow(title: str, shown: str, target: str, message: str, *files: str) -> Mistake:
    """Something that is found when the workflow is planned, before a job starts."""

    def make() -> None:
        config = "{corpora: {book: {files: texts}}, datasets: {book: {}}}"
        write_files({"config.yaml": config, **dict.fromkeys(files, TEXT)})
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"),
                *("--cores", "1", "--dry-run", target),
            ],
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        sys.exit(next(line for line in ended.stderr.splitlines() if line.startswith("error: ")))

    return Mistake(title, shown, make, message)


TEXTS = [
    absent(
        "a text that is not there",
        "book.txt",
        "corpora.book.files: there is no file book.txt; put it there or correct the path",
    ),
    absent(
        "a pattern that matches nothing",
        "texts/*.txt",
        "corpora.book.files: no file matches the pattern texts/*.txt; put texts there"
        " or correct it",
    ),
    absent(
        "a pattern that leads out of the project",
        "../texts/*.txt",
        "corpora.book.files: the pattern ../texts/*.txt leads out of the project, "
        "where a slip may search a whole disk; name a directory instead, or link the "
        "texts into resources/",
    ),
    absent(
        "a directory without texts",
        "texts",
        "corpora.book.files: there is no .txt, .jsonl, .ndjson, .csv, .parquet file "
        "in the directory texts; put texts there, or name a file of it, whatever its "
        "name",
        "texts/cover.jpg",
    ),
    Mistake(
        "a link to nothing",
        "`texts/b.txt`, a link to a file that is gone",
        link_to_nothing,
        "corpora.book.files: texts/b.txt: a link to nothing; mend or remove it",
    ),
    workflow(
        "braces in the name of a text",
        "`texts/{a}.txt`",
        "results/datasets/book/meta.json",
        "corpora.book.files: texts/{a}.txt: Snakemake takes braces in a name for "
        "wildcards; rename the file",
        "texts/{a}.txt",
    ),
    text(
        "an empty text",
        "`book.txt` of 0 bytes",
        b"",
        "book.txt: empty; put a text there, or take it out of the corpus",
    ),
    text(
        "a text too short to split",
        "`book.txt` of 4 characters",
        b"text",
        "book.txt: 4 characters in all, too few to split by val_ratio 0.1: the val "
        "split would have 1 token; add text, or change val_ratio or `split:` of the "
        "dataset",
    ),
    text(
        "a binary file",
        "`book.txt`, in truth a program",
        b"\x7fELF\x02\x01\x01\0\0\0",
        "book.txt: binary, not text: it has zero bytes, or no encoding's form; if it "
        "is text, name its corpus's `encoding:` (as UTF-16 without a byte order mark "
        "needs), and say `errors: replace` to take zero bytes",
    ),
    text(
        "zero bytes in a text",
        "`book.txt` with a zero byte",
        b"a\0b" + TEXT.encode(),
        "book.txt: binary, not text: it has zero bytes, or no encoding's form; if it "
        "is text, name its corpus's `encoding:` (as UTF-16 without a byte order mark "
        "needs), and say `errors: replace` to take zero bytes",
        encoding="utf-8",
    ),
    text(
        "UTF-16 without a byte order mark",
        "`encoding: utf-16`",
        TEXT.encode("utf-16-le"),
        "book.txt: not utf-16: UTF-16 stream does not start with BOM: name utf-16-le "
        "or utf-16-be; convert the file to UTF-8, name the right encoding as its "
        "corpus's `encoding:`, or say `errors: replace` there",
        encoding="utf-16",
    ),
    text(
        "the wrong encoding",
        "`encoding: utf-8` for a text in Latin-1",
        ("Käse. " + TEXT).encode("latin-1"),
        "book.txt: not utf-8: byte 0xe4 at offset 1 does not fit (invalid "
        "continuation byte); convert the file to UTF-8, name the right encoding as "
        "its corpus's `encoding:`, or say `errors: replace` there",
        encoding="utf-8",
    ),
    text(
        "a flaw in UTF-8",
        "`book.txt` with a byte 0xff at its end",
        ("Käse. " * 20).encode() + b"\xff",
        "book.txt: not utf-8: byte 0xff at offset 140 does not fit (invalid start "
        "byte); convert the file to UTF-8, name the right encoding as its corpus's "
        "`encoding:`, or say `errors: replace` there",
    ),
    text(
        "a wrong sha256 of a text",
        "`sha256:` of another file",
        TEXT,
        "book.txt: its sha256 is "
        "30a2bfe5d42666cd3dbc89b25f95b842997f9fe33d3d9f5af861e9241f6647f7, but "
        "config.yaml says "
        "0000000000000000000000000000000000000000000000000000000000000000; correct "
        "it, or remove a download to make it again",
        sha256=64 * "0",
    ),
    text(
        "a .gz that is cut short",
        "`book.txt.gz` cut in half",
        gzip.compress(TEXT.encode())[:40],
        "book.txt.gz: cannot be read to its end: Compressed file ended before the "
        "end-of-stream marker was reached; it may be cut short or damaged: get it "
        "again",
        name="book.txt.gz",
    ),
    text(
        "a .gz that is none",
        "`book.txt.gz`, in truth a text",
        TEXT,
        "book.txt.gz: cannot be read to its end: Not a gzipped file (b'It'); it may "
        "be cut short or damaged: get it again",
        name="book.txt.gz",
    ),
    text(
        "a line that is not JSON",
        code('{"text": }'),
        '{"text": }',
        "book.jsonl: line 1: not JSON: Expecting value (character 10); mend the line "
        "or take it out",
        name="book.jsonl",
    ),
    text(
        "a line that is no object",
        code('["text"]'),
        '["text"]',
        'book.jsonl: line 1: not a JSON object, such as {"text": "a document"}; mend '
        "the line or take it out",
        name="book.jsonl",
    ),
    text(
        "no column of that name",
        code('{"body": "a"}'),
        '{"body": "a"}',
        "book.jsonl: line 1: no column `text`; there is `body`; name the one with "
        "the text as the corpus's `text_column:`",
        name="book.jsonl",
    ),
    text(
        "a number for a text",
        code('{"text": 5}'),
        '{"text": 5}',
        "book.jsonl: line 1: `text` is no text but int; mend it, or name what holds "
        "the text as the corpus's `text_column:`",
        name="book.jsonl",
    ),
    text(
        "half a character",
        code('{"text": "\\ud800"}'),
        '{"text": "\\ud800"}',
        "book.jsonl: line 1: a lone surrogate, U+D800, which is no character; mend "
        "the text or say `errors: replace` of its corpus",
        name="book.jsonl",
    ),
    text(
        "a table without a text",
        code('{"text": ""}'),
        '{"text": ""}',
        "book.jsonl: no document in it; put texts there or take it out of the corpus",
        name="book.jsonl",
    ),
    text(
        "a CSV without the column",
        code("a,b"),
        "a,b\n1,2\n",
        "book.csv: no column `text`; there is `a`, `b`; name the one with the text "
        "as the corpus's `text_column:`",
        name="book.csv",
    ),
    text(
        "a row with a field too many",
        "`text,year`, then `one, two,1984`",
        "text,year\none, two,1984\n",
        "book.csv: line 2: 3 fields where the header has 2; mend the row: a field "
        "with a comma in it stands in double quotes",
        name="book.csv",
    ),
    text(
        "a quote that is not closed",
        code("text") + ", then " + code('"one'),
        'text\n"one\n',
        "book.csv: line 2: not CSV: unexpected end of data; mend the row, where a "
        "double quote may be missing or not be doubled",
        name="book.csv",
    ),
    text(
        "a parquet file that is none",
        "`book.parquet`, in truth a text",
        TEXT,
        "book.parquet: not a parquet file that can be read: Parquet magic bytes not "
        "found in footer. Either the file is corrupted or this is not a parquet file;"
        " get it again",
        name="book.parquet",
    ),
    text(
        "a parquet file without the column",
        "`book.parquet` with `body`",
        parquet_bytes({"body": ["a"]}),
        "book.parquet: no column `text`; there is `body`; name the one with the text "
        "as the corpus's `text_column:`",
        name="book.parquet",
    ),
    text(
        "a parquet column of numbers",
        "`book.parquet` with numbers",
        parquet_bytes({"text": [5]}),
        "book.parquet: row 1: `text` is no text but int; mend it, or name what holds "
        "the text as the corpus's `text_column:`",
        name="book.parquet",
    ),
    text(
        "no place to cut byte pairs",
        "`tokenizer: bpe` for 4.8 million letters without a blank",
        b"x" * 4_800_000,
        "book.txt: 4,320,000 characters without a blank, where byte pairs could be "
        "cut, from 'xxxxxxxxxxxxxxxxxxxx' on; add line breaks, or take `tokenizer: "
        "char` or `byte`",
        dataset={"tokenizer": "bpe"},
    ),
    Mistake(
        "a text that changes while it is read",
        "`book.txt` saved during its preparation",
        edit_while_prepared,
        "book.txt, or a file after it, changed while it was read; try again",
    ),
]

# --- Tokenizers -----------------------------------------------------------------------------


def given_tokenizer(
    title: str,
    shown: str,
    tokenizer: bytes | str | None,
    message: str,
    *,
    name: str = "tokenizer.json",
) -> Mistake:
    """A dataset whose tokenizer is that of another dataset, or GPT-2's."""

    def make() -> None:
        file = f"results/datasets/other/{name}"
        write_files({"book.txt": TEXT, **({file: tokenizer} if tokenizer is not None else {})})
        corpus, dataset = Corpus(files=["book.txt"]), Dataset(tokenizer="other")
        prepare([Path("book.txt")], corpus, dataset, BOOK, tokenizer_file=file)

    return Mistake(title, shown, make, message)


def characters(vocabulary: str) -> str:
    return json.dumps({"type": "char", "vocabulary": vocabulary})


def separate_documents() -> None:
    write_files({"a.txt": "aba", "b.txt": "bab"})
    CharTokenizer("ab").save("tokenizer.json")
    files, corpus = [Path("a.txt"), Path("b.txt")], Corpus(files=["a.txt", "b.txt"])
    prepare(files, corpus, Dataset(tokenizer="other"), BOOK, tokenizer_file="tokenizer.json")


TOKENIZERS = [
    given_tokenizer(
        "a tokenizer that is not there",
        "no `tokenizer.json` in it",
        None,
        "results/datasets/other/tokenizer.json: no such file; make the dataset or model again",
    ),
    given_tokenizer(
        "half a tokenizer",
        "`tokenizer.json` cut in half",
        '{"type": "ch',
        "results/datasets/other/tokenizer.json: not a tokenizer of ours; make the "
        "dataset or model again",
    ),
    given_tokenizer(
        "a character twice",
        "a vocabulary `aab`",
        characters("aab"),
        "results/datasets/other/tokenizer.json: not a tokenizer of ours; make the "
        "dataset or model again",
    ),
    given_tokenizer(
        "half a character in a vocabulary",
        "a vocabulary with U+D800",
        characters("a\ud800"),
        "results/datasets/other/tokenizer.json: not a tokenizer of ours; make the "
        "dataset or model again",
    ),
    given_tokenizer(
        "a tokenizer of brackets without end",
        "100,000 of `[`",
        100_000 * "[",
        "results/datasets/other/tokenizer.json: not a tokenizer of ours; make the "
        "dataset or model again",
    ),
    given_tokenizer(
        "byte pairs without all bytes",
        "`tokens` of two",
        '{"type": "bpe", "tokens": ["a", "b"]}',
        "results/datasets/other/tokenizer.json: not a tokenizer of ours; make the "
        "dataset or model again",
    ),
    given_tokenizer(
        "another's tokenizer.json",
        "one of Hugging Face",
        '{"version": "1.0", "model": {"type": "BPE"}}',
        "results/datasets/other/tokenizer.json: not a tokenizer of ours; make the "
        "dataset or model again",
    ),
    given_tokenizer(
        "merges that are not GPT-2's",
        "another `vocab.bpe`",
        "#version: 0.2\na b\n",
        "results/datasets/other/vocab.bpe: not GPT-2's merges, by its sha256; remove "
        "it, and try again",
        name="vocab.bpe",
    ),
    given_tokenizer(
        "a tokenizer that lacks a letter",
        "`tokenizer: other`, made of a text without some letters",
        characters("".join(sorted(set(TEXT) - set("IA")))),
        "book.txt: with the tokenizer `other` and the separator '\\n': the tokenizer's"
        " vocabulary of 22 characters lacks 'I' (U+0049), 'A' (U+0041); leave them "
        "out, or choose another tokenizer or separator",
    ),
    Mistake(
        "a tokenizer that lacks the separator",
        "`tokenizer: other`, made of one line, for several texts",
        separate_documents,
        "a.txt: with the tokenizer `other` and the separator '\\n': the tokenizer's "
        "vocabulary of 2 characters lacks '\\n' (U+000A); leave it out, or choose "
        "another tokenizer or separator",
    ),
]

# --- Datasets -------------------------------------------------------------------------------


def make_dataset() -> None:
    prepare_book({"book.txt": TEXT}, {})


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def train_first(model: ModelSettings = TINY, **changes: object) -> None:
    """Train a run `first` on the dataset `book`, for a step or two."""
    settings = TrainSettings.model_validate(
        {
            **{"max_iters": 2, "batch_size": 2, "eval_interval": 1, "eval_iters": 1},
            **{"log_interval": 1, "decay_lr": False, "device": "cpu", "dtype": "float32"},
            **changes,
        }
    )
    train("first", BOOK, model, settings, Held(Path("state"), "v"), Path("results/first"))


def damaged_dataset(title: str, shown: str, damage: Callable[[], object], message: str) -> Mistake:
    """A dataset that was damaged after it was made, and is trained on."""

    def make() -> None:
        make_dataset()
        damage()
        train_first()

    return Mistake(title, shown, make, message)


DATASETS = [
    Mistake(
        "a dataset that is not there",
        "training before `prepare`",
        train_first,
        "results/datasets/book: no dataset here; meta.json is missing: make the "
        "dataset, or name the directory of one",
    ),
    damaged_dataset(
        "half a meta.json",
        "`meta.json` cut in half",
        lambda: (BOOK / "meta.json").write_text('{"dtype": "ui'),
        "results/datasets/book/meta.json: damaged; make the dataset again",
    ),
    damaged_dataset(
        "a dtype that there is not",
        '`"dtype": "uint17"` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", dtype="uint17"),
        "results/datasets/book/meta.json: damaged; make the dataset again",
    ),
    damaged_dataset(
        "a dtype that no token file has",
        '`"dtype": "int16"` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", dtype="int16"),
        "results/datasets/book/meta.json: damaged; make the dataset again",
    ),
    damaged_dataset(
        "a word for a number of tokens",
        '`"n_tokens": "5"` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", val={"n_tokens": "5"}),
        "results/datasets/book/meta.json: damaged; make the dataset again",
    ),
    damaged_dataset(
        "nothing for a number of tokens",
        '`"n_tokens": null` in `meta.json`',
        lambda: edit_json(BOOK / "meta.json", train={"n_tokens": None}),
        "results/datasets/book/meta.json: damaged; make the dataset again",
    ),
    damaged_dataset(
        "a split of no tokens",
        '`"n_tokens": 0` and `val.bin` of 0 bytes',
        in_turn(
            lambda: edit_json(BOOK / "meta.json", val={"n_tokens": 0}),
            lambda: (BOOK / "val.bin").write_bytes(b""),
        ),
        "results/datasets/book/meta.json: damaged; make the dataset again",
    ),
    damaged_dataset(
        "a directory for a meta.json",
        "`meta.json/`",
        in_turn((BOOK / "meta.json").unlink, (BOOK / "meta.json").mkdir),
        "results/datasets/book/meta.json: cannot be read: Is a directory; make the dataset again",
    ),
    Mistake(
        "a file for a dataset",
        "`results/datasets/book`, a file",
        in_turn(lambda: write_files({str(BOOK): TEXT}), train_first),
        "results/datasets/book/meta.json: cannot be read: Not a directory; make the dataset again",
    ),
    damaged_dataset(
        "a token file that was cut",
        "`train.bin` two bytes shorter",
        lambda: os.truncate(BOOK / "train.bin", 400),
        "results/datasets/book/train.bin: 400 bytes where meta.json promises 266 "
        "tokens of uint16; make the dataset again",
    ),
    damaged_dataset(
        "a token file that is not there",
        "`val.bin` removed",
        lambda: (BOOK / "val.bin").unlink(),
        "results/datasets/book/val.bin: no such file; make the dataset again",
    ),
    damaged_dataset(
        "a token id out of range",
        "`val.bin` of another dataset of the same size",
        lambda: (BOOK / "val.bin").write_bytes(b"\xff" * (BOOK / "val.bin").stat().st_size),
        "results/datasets/book/val.bin: token id 65535 is outside the vocabulary of "
        "24; make the dataset again",
    ),
    damaged_dataset(
        "a dataset without a tokenizer",
        "`tokenizer.json` removed",
        lambda: (BOOK / "tokenizer.json").unlink(),
        "results/datasets/book/tokenizer.json: no such file; make the dataset or model again",
    ),
    Mistake(
        "a block_size longer than a split",
        "`model: {block_size: 64}` for a short text",
        in_turn(make_dataset, lambda: train_first(TINY.model_copy(update={"block_size": 64}))),
        "dataset book: the val split has 30 tokens, fewer than one window of "
        "block_size 64 and its last target; lower block_size or add text",
    ),
]

# --- Models ---------------------------------------------------------------------------------


class Bomb:
    """An object whose pickle makes a file when it is read."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (EXECUTED,))


def make_model(letters: str = "abc \n") -> None:
    tokenizer = char_tokenizer(letters)
    torch.manual_seed(0)
    save_model(MODEL, GPT(TINY, tokenizer.vocab_size).state_dict(), TINY, tokenizer)


def damaged_model(title: str, shown: str, damage: Callable[[], object], message: str) -> Mistake:
    """A model that was damaged after it was trained, and is sampled from."""

    def make() -> None:
        make_model()
        damage()
        main(["sample", str(MODEL)])

    return Mistake(title, shown, make, message)


def weights(
    title: str, shown: str, change: Callable[[bytearray], bytes | bytearray], message: str
) -> Mistake:
    """Weights whose bytes were changed."""
    return damaged_model(
        title, shown, lambda: WEIGHTS.write_bytes(change(bytearray(WEIGHTS.read_bytes()))), message
    )


def tensors(
    title: str, shown: str, changes: Mapping[str, torch.Tensor | None], message: str
) -> Mistake:
    """Weights whose tensors were changed."""

    def damage() -> None:
        changed = {**load_file(WEIGHTS), **changes}
        save_file({name: t for name, t in changed.items() if t is not None}, WEIGHTS)

    return damaged_model(title, shown, damage, message)


def flipped(data: bytearray, at: int) -> bytearray:
    data[at] ^= 1
    return data


def safetensors(*offsets: tuple[int, int]) -> bytes:
    """A safetensors file of 16 bytes of data that says that its tensors lie at these offsets."""
    header = json.dumps(
        {
            f"tensor{number}": {"dtype": "F32", "shape": [2], "data_offsets": place}
            for number, place in enumerate(offsets)
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def evaluate_another() -> None:
    make_dataset()
    make_model()
    evaluate("demo", BOOK, MODEL, EvalSettings(device="cpu"), Path("results/demo/eval.json"))


MODELS = [
    command(
        "a model that is not there",
        "sample results/demo/model",
        "results/demo/model: no model here; config.json is missing: train the run, or"
        " name the directory of a model",
    ),
    damaged_model(
        "a model without a config",
        "`config.json` removed",
        lambda: (MODEL / "config.json").unlink(),
        "results/demo/model: no model here; config.json is missing: train the run, or"
        " name the directory of a model",
    ),
    damaged_model(
        "a model without weights",
        "`model.safetensors` removed",
        WEIGHTS.unlink,
        "results/demo/model/model.safetensors: no such file; train the run again",
    ),
    damaged_model(
        "a model without a tokenizer",
        "`tokenizer.json` removed",
        lambda: (MODEL / "tokenizer.json").unlink(),
        "results/demo/model/tokenizer.json: no such file; make the dataset or model again",
    ),
    damaged_model(
        "half a config",
        "`config.json` cut in half",
        lambda: (MODEL / "config.json").write_text('{"archi'),
        "results/demo/model/config.json: not a model's config; train the run again",
    ),
    damaged_model(
        "a config of Hugging Face",
        '`{"model_type": "gpt2", "n_layer": 12}`',
        lambda: (MODEL / "config.json").write_text('{"model_type": "gpt2", "n_layer": 12}'),
        "results/demo/model/config.json: not a model's config (`architecture` is "
        "missing); train the run again",
    ),
    damaged_model(
        "another architecture",
        '`"architecture": "llama"`',
        lambda: edit_json(MODEL / "config.json", architecture="llama"),
        "results/demo/model/config.json: an architecture that this version does not "
        "know; train the run again",
    ),
    damaged_model(
        "a model of no layers",
        '`"n_layer": 0`',
        lambda: edit_json(MODEL / "config.json", n_layer=0),
        "results/demo/model/config.json: not a model's config (n_layer: should be "
        "greater than or equal to 1 (found 0)); train the run again",
    ),
    damaged_model(
        "a setting that no model has",
        '`"n_layers": 1`',
        lambda: edit_json(MODEL / "config.json", n_layers=1),
        "results/demo/model/config.json: not a model's config (n_layers: unknown "
        "setting; did you mean `n_layer`?); train the run again",
    ),
    damaged_model(
        "a model's config of brackets without end",
        "`config.json` of 100,000 `[`",
        lambda: (MODEL / "config.json").write_text(100_000 * "["),
        "results/demo/model/config.json: not a model's config; train the run again",
    ),
    damaged_model(
        "heads that do not divide a model's width",
        '`"n_head": 3`',
        lambda: edit_json(MODEL / "config.json", n_head=3),
        "results/demo/model/config.json: n_embd 4 is not divisible by n_head 3; train"
        " the run again",
    ),
    damaged_model(
        "a tokenizer of another model",
        "`tokenizer.json` of two characters",
        lambda: CharTokenizer("ab").save(MODEL / "tokenizer.json"),
        "results/demo/model/config.json: vocab_size is 5, but tokenizer.json has 2 "
        "tokens; they do not belong together: train the run again",
    ),
    damaged_model(
        "a tokenizer of a model that was cut",
        "`tokenizer.json` cut in half",
        lambda: (MODEL / "tokenizer.json").write_text('{"type": "ch'),
        "results/demo/model/tokenizer.json: not a tokenizer of ours; make the "
        "dataset or model again",
    ),
    weights(
        "weights cut in half",
        "`model.safetensors` cut in half",
        lambda data: data[: len(data) // 2],
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: incomplete metadata, file not fully covered); train the run again",
    ),
    weights(
        "weights of no bytes",
        "`model.safetensors` of 0 bytes",
        lambda _: b"",
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: header too small); train the run again",
    ),
    weights(
        "weights of zeros",
        "`model.safetensors` of zero bytes",
        lambda data: bytes(len(data)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: invalid JSON in header: EOF while parsing a value at line 1 column "
        "0); train the run again",
    ),
    weights(
        "weights with a tail",
        "four bytes after the end",
        lambda data: data + bytes(4),
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: incomplete metadata, file not fully covered); train the run again",
    ),
    weights(
        "a bit that flipped",
        "one bit of the header is another",
        lambda data: flipped(data, 8),
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: invalid JSON in header: expected value at line 1 column 1); train "
        "the run again",
    ),
    weights(
        "a pickle for weights",
        "`model.safetensors`, in truth a pickle that runs code",
        lambda _: pickle.dumps(Bomb()),
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: header too large); train the run again",
    ),
    weights(
        "a header that says it is huge",
        "a length of 2^63 bytes",
        lambda data: struct.pack("<Q", 2**63) + data[8:],
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: header too large); train the run again",
    ),
    weights(
        "a tensor before the file",
        "offsets from -8 to 0",
        lambda _: safetensors((-8, 0)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: invalid JSON in header: invalid value: integer `-8`, expected usize "
        "at line 1 column 68); train the run again",
    ),
    weights(
        "a tensor beyond the file",
        "offsets from 0 to 8 and from 8 to 4096",
        lambda _: safetensors((0, 8), (8, 4096)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: invalid shape, data type, or offset for tensor); train the run again",
    ),
    weights(
        "tensors that overlap",
        "offsets from 0 to 8 and from 4 to 12",
        lambda _: safetensors((0, 8), (4, 12)),
        "results/demo/model/model.safetensors: damaged (Error while deserializing "
        "header: invalid offset for tensor `tensor1`); train the run again",
    ),
    damaged_model(
        "a directory for weights",
        "`model.safetensors/`",
        in_turn(WEIGHTS.unlink, WEIGHTS.mkdir),
        "results/demo/model/model.safetensors: no such file; train the run again",
    ),
    tensors(
        "a weight that is not a number",
        "NaN in `h.0.ln_1.weight`",
        {"h.0.ln_1.weight": torch.tensor([1, torch.nan, 1, 1])},
        "results/demo/model/model.safetensors: tensor h.0.ln_1.weight has NaN or "
        "infinity; train the run again",
    ),
    tensors(
        "an infinite weight",
        "-inf in `h.0.ln_1.weight`",
        {"h.0.ln_1.weight": torch.tensor([1, -torch.inf, 1, 1])},
        "results/demo/model/model.safetensors: tensor h.0.ln_1.weight has NaN or "
        "infinity; train the run again",
    ),
    tensors(
        "weights of whole numbers",
        "`h.0.ln_1.weight` as int64",
        {"h.0.ln_1.weight": torch.ones(4, dtype=torch.int64)},
        "results/demo/model/model.safetensors: tensor h.0.ln_1.weight is int64 of "
        "shape (4,), but the model's is float32 of shape (4,); train the run again",
    ),
    tensors(
        "weights of half the precision",
        "`h.0.ln_1.weight` as float16",
        {"h.0.ln_1.weight": torch.ones(4, dtype=torch.float16)},
        "results/demo/model/model.safetensors: tensor h.0.ln_1.weight is float16 of "
        "shape (4,), but the model's is float32 of shape (4,); train the run again",
    ),
    tensors(
        "weights of another width",
        "`h.0.ln_1.weight` of 5 numbers",
        {"h.0.ln_1.weight": torch.ones(5)},
        "results/demo/model/model.safetensors: tensor h.0.ln_1.weight is float32 of "
        "shape (5,), but the model's is float32 of shape (4,); train the run again",
    ),
    tensors(
        "a tensor too few",
        "no `h.0.ln_2.weight`",
        {"h.0.ln_2.weight": None},
        "results/demo/model/model.safetensors: tensor h.0.ln_2.weight is missing; "
        "train the run again",
    ),
    tensors(
        "a tensor too many",
        "`h.1.ln_1.weight` in a model of one layer",
        {"h.1.ln_1.weight": torch.ones(4)},
        "results/demo/model/model.safetensors: tensor h.1.ln_1.weight is not of this "
        "model; train the run again",
    ),
    Mistake(
        "a model of another dataset",
        "evaluated on a dataset of other letters",
        evaluate_another,
        "results/demo/model: trained on another vocabulary than "
        "results/datasets/book; train the run again, or evaluate it on its own "
        "dataset",
    ),
]

# --- Prompts and sampling -------------------------------------------------------------------


def prompt(
    title: str,
    flags: str,
    message: str,
    files: Mapping[str, bytes | str] | None = None,
    impossible: Callable[[], bool] = lambda: False,
) -> Mistake:
    """A model of the letters a, b, c and flags of `nanogpt sample` that it cannot follow."""
    before = in_turn(make_model, lambda: write_files(files or {}))
    return command(title, f"sample {MODEL} {flags}", message, before, impossible)


PROMPTS = [
    prompt(
        "a letter that the model does not know",
        "--start 'a cab, café'",
        "sample.start: the tokenizer's vocabulary of 5 characters lacks ',' (U+002C),"
        " 'f' (U+0066), 'é' (U+00E9); leave them out, or say `unknown: skip`",
    ),
    prompt(
        "no letter that the model knows",
        "--start xyz --unknown skip",
        "sample.start: no character of it is in the vocabulary; give another start",
    ),
    prompt("no prompt", "--start ''", "start: string should have at least 1 character (found '')"),
    prompt(
        "a prompt file that is not there",
        "--start FILE:prompt.txt",
        "sample.start: prompt.txt: no such file; put a text there or correct the path",
    ),
    prompt(
        "a directory for a prompt",
        "--start FILE:prompts",
        "sample.start: prompts: a directory; name a text file in it",
        {"prompts/a.txt": "a"},
    ),
    prompt(
        "a binary prompt",
        "--start FILE:prompt.bin",
        "sample.start: the tokenizer's vocabulary of 5 characters lacks '\\x00' "
        "(U+0000); leave it out, or say `unknown: skip`",
        {"prompt.bin": b"a\0b"},
    ),
    prompt(
        "a prompt file in Latin-1",
        "--start FILE:prompt.txt",
        "sample.start: prompt.txt: not UTF-8: byte 0xe9 at offset 3; convert it",
        {"prompt.txt": b"caf\xe9"},
    ),
    prompt(
        "a prompt file whose name is too long",
        f"--start FILE:{300 * 'a'}",
        "sample.start: "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:"
        " cannot be read: File name too long; correct the path, or get it again",
    ),
    prompt(
        "an empty prompt file",
        "--start FILE:prompt.txt",
        "sample.start: prompt.txt: empty; put a prompt there",
        {"prompt.txt": ""},
    ),
    prompt(
        "a prompt that is not UTF-8",
        f"--start {NO_UTF8}",
        "start: should be a valid string, unable to parse raw data as a unicode "
        "string (found 'caf\\udce9')",
    ),
    prompt(
        "sampling without a temperature",
        "--temperature 0",
        "temperature: should be greater than or equal to 0.000001 (found 0.0)",
    ),
    prompt(
        "sampling among less than none",
        "--top-k -1",
        "top_k: should be greater than or equal to 0 (found -1)",
    ),
    prompt(
        "no samples",
        "--num-samples 0",
        "num_samples: should be greater than or equal to 1 (found 0)",
    ),
    prompt(
        "samples of no tokens",
        "--max-new-tokens 0",
        "max_new_tokens: should be greater than or equal to 1 (found 0)",
    ),
    prompt(
        "a negative seed of samples",
        "--seed -1",
        "seed: should be greater than or equal to 0 (found -1)",
    ),
]

# --- Devices, training ----------------------------------------------------------------------


def save_often() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOGPT_SAVE_INTERVAL", "often")
        train_first()


def take_another_models_state() -> None:
    model = GPT(TINY.model_copy(update={"n_embd": 8}), vocab_size=3)
    Path("state").mkdir()
    optimizer = torch.optim.AdamW(model.parameters())
    save_state(Path("state"), Progress("v", step=1), model, optimizer)
    try:
        train_first()
    except UserError as error:
        raise UserError(re.sub(r"\.[0-9a-f]{16}\.", ".DIGEST.", str(error))) from None


def be_taken_over() -> None:
    with lock.hold(Path("state"), "which sleeps") as held:
        Path("state/lock.2").write_text("{}")
        held.check()


def claim_a_trained_run() -> None:
    asked = {"version": "0123456789ab", "inputs": {}, "parameters": {}, "code": ""}
    with state.hold("first", asked, {}) as held:
        Path(".nanogpt/runs/first").write_text("another version")
        held.check_owner()


def without_compiler() -> None:
    make_dataset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        patch.delenv("CXX", raising=False)
        train_first(compile=True)


def as_a_job(work: Callable[[], object]) -> Callable[[], None]:
    """Work that a job of the workflow does, with its log."""

    def make() -> None:
        package = logging.getLogger("nanogpt")
        before, level = list(package.handlers), package.level
        try:
            with logged(SimpleNamespace(rule="train", log=["results/first/logs/train.log"])):
                work()
        finally:
            package.setLevel(level)
            for handler in set(package.handlers) - set(before):
                package.removeHandler(handler)
                handler.close()

    return make


TRAINING = [
    prompt(
        "a GPU that is absent",
        "--device cuda",
        "device cuda: no CUDA device here; set device to auto or cpu",
        impossible=torch.cuda.is_available,
    ),
    prompt(
        "Apple's GPU where there is none",
        "--device mps",
        "device mps: there is none here; set device to auto or cpu",
        impossible=torch.backends.mps.is_available,
    ),
    prompt(
        "a device that there is not",
        "--device gpu",
        "device: should be auto, cpu, mps, cuda or cuda:N (found 'gpu')",
    ),
    Mistake(
        "a training that diverges",
        code("train: {learning_rate: 1e30, decay_lr: no}"),
        in_turn(make_dataset, lambda: train_first(learning_rate=1e30)),
        "training diverged: train_loss is nan at step 1; lower learning_rate, raise "
        "warmup_iters or set grad_clip",
    ),
    Mistake(
        "seconds that are none",
        code("NANOGPT_SAVE_INTERVAL=often snakemake ..."),
        in_turn(make_dataset, save_often),
        "NANOGPT_SAVE_INTERVAL: `often` is no number of seconds; say 60, for example",
    ),
    Mistake(
        "a state of another model",
        "a file of `.nanogpt/state/` copied from another training",
        in_turn(make_dataset, take_another_models_state),
        "state/step-1.DIGEST.safetensors: not a state of this model, or of this version of "
        "nanogpt; remove state to train from the beginning",
    ),
    Mistake(
        "a trainer that slept, while another took over",
        "a laptop is closed; on a shared disk, another machine goes on with the training",
        be_taken_over,
        "state: another process has taken over this work while this one slept, or the directory "
        "was removed; this one stops",
    ),
    Mistake(
        "two trainers with other settings",
        "`config.yaml` edited and the run started again, while an orphan still trains it",
        claim_a_trained_run,
        "first: another process trains this run with other settings or code now; this one stops",
    ),
    Mistake(
        "no compiler",
        "`train: {compile: yes}` on a machine without a C++ compiler",
        without_compiler,
        "train.compile: torch.compile needs a C++ compiler on a CPU and found none "
        "(g++, clang++ or $CXX); install one or set compile: false",
    ),
    Mistake(
        "too little memory",
        code("model: {n_embd: 10000000000000}"),
        as_a_job(
            in_turn(make_dataset, lambda: train_first(TINY.model_copy(update={"n_embd": 10**13})))
        ),
        "out of memory; lower batch_size (and raise gradient_accumulation_steps to "
        "match), block_size or the model's size",
    ),
    Mistake(
        "a full disk",
        "no space left for the results",
        as_a_job(lambda: Path("/dev/full").write_text("text")),
        "disk full while writing a result; free some space",
        lambda: not Path("/dev/full").exists(),
    ),
]

# --- Downloads ------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def server() -> Iterator[str]:
    """An HTTP server of the current directory on loopback; its host and port."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def fetch_book(host: str, **options: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "BACKOFF", 0.001)
        for name in ("http", "https", "all"):
            patch.delenv(f"{name}_proxy", raising=False)
            patch.delenv(f"{name}_proxy".upper(), raising=False)
        fetch(f"http://{host}/book.txt", Path("resources/corpora/book/book.txt"), **options)


def fetch_from_server(**options: object) -> None:
    with server() as host:
        fetch_book(host, **options)


def refused() -> None:
    with server() as host:
        pass  # gone before it is asked
    fetch_book(host)


def wrong_digest() -> None:
    write_files({"mirror/example.org/book.txt": TEXT})
    fetch_book("example.org", sha256=64 * "0", mirrors=["mirror"])


def directory_in_the_way() -> None:
    write_files({"mirror/example.org/book.txt": TEXT, "resources/corpora/book/book.txt/a": TEXT})
    fetch_book("example.org", mirrors=["mirror"])


DOWNLOADS = [
    Mistake(
        "a server that refuses",
        "`url: http://HOST/book.txt`",
        refused,
        "http://HOST/book.txt: no connection: Connection refused; set NANOGPT_MIRROR "
        "to a mirror (a directory or URL), put the file at "
        "resources/corpora/book/book.txt by hand, or try `make demo`, which needs no "
        "download",
    ),
    Mistake(
        "a URL of a file that is gone",
        "`url: http://HOST/book.txt`",
        fetch_from_server,
        "http://HOST/book.txt: HTTP 404; set NANOGPT_MIRROR to a mirror (a directory "
        "or URL), put the file at resources/corpora/book/book.txt by hand, or try "
        "`make demo`, which needs no download",
    ),
    Mistake(
        "neither a mirror nor its URL has it",
        "`mirrors: [mirror]`, without the file",
        lambda: fetch_from_server(mirrors=["mirror"]),
        "http://HOST/book.txt: HTTP 404; set NANOGPT_MIRROR to a mirror (a directory "
        "or URL), put the file at resources/corpora/book/book.txt by hand, or try "
        "`make demo`, which needs no download",
    ),
    Mistake(
        "a download of another sha256",
        "`sha256:` of another version of the file",
        wrong_digest,
        "mirror/example.org/book.txt: wrong sha256: expected "
        "0000000000000000000000000000000000000000000000000000000000000000, found "
        "30a2bfe5d42666cd3dbc89b25f95b842997f9fe33d3d9f5af861e9241f6647f7; the file "
        "is kept as resources/corpora/book/book.txt.corrupt: if it is the right one, "
        "correct `sha256:` in config.yaml, else try again or elsewhere",
    ),
    Mistake(
        "a download that has no place",
        "a directory where the file shall lie",
        directory_in_the_way,
        "resources/corpora/book/book.txt: cannot be written: Is a directory; make "
        "room or give write permission, and try again",
    ),
]

# --- Reports --------------------------------------------------------------------------------

METRICS = '{"step": 0, "tokens": 0, "val_loss": 4.2}\n'
SPLIT = {"loss": 4.2, "perplexity": 66.7, "bits_per_byte": 6.1}
EVALUATION = {
    "dataset": "letters",
    "val": SPLIT,
    "train": SPLIT,
    "model": {"n_parameters": 1, "vocab_size": 2},
}


def report_on(title: str, shown: str, files: Mapping[str, str], message: str) -> Mistake:
    """A report over a run `demo` of which these files are there."""

    def make() -> None:
        write_files({f"results/demo/{name}": content for name, content in files.items()})
        report.write_report(results.read_runs([Path("results/demo")]), Path("results/report"))

    return Mistake(title, shown, make, message)


REPORTS = [
    Mistake(
        "a report on nothing",
        "`report: {runs: []}`",
        lambda: report.write_report([], Path("results/report")),
        "no runs to report on; name at least one in report.runs, or train one",
    ),
    report_on(
        "a run that was not trained",
        "no `metrics.jsonl`",
        {},
        "results/demo/metrics.jsonl: No such file or directory; train the run first",
    ),
    report_on(
        "metrics of nothing",
        "`metrics.jsonl` of 0 bytes",
        {"metrics.jsonl": ""},
        "results/demo/metrics.jsonl: no metrics in it; train the run first",
    ),
    report_on(
        "a line that is no metrics",
        "`metrics.jsonl` with a line of another kind",
        {"metrics.jsonl": "loss 4.2\n" + METRICS},
        "results/demo/metrics.jsonl: line 1 is no line of metrics; train the run again",
    ),
    report_on(
        "a word for a step",
        '`{"step": "x", "tokens": 0}`',
        {"metrics.jsonl": '{"step": "x", "tokens": 0}\n' + METRICS},
        "results/demo/metrics.jsonl: line 1 is no line of metrics; train the run again",
    ),
    report_on(
        "a word for a loss",
        '`{"step": 0, "tokens": 0, "loss": "low"}`',
        {"metrics.jsonl": '{"step": 0, "tokens": 0, "loss": "low"}\n' + METRICS},
        "results/demo/metrics.jsonl: line 1 is no line of metrics; train the run again",
    ),
    report_on(
        "a run that was not evaluated",
        "no `eval.json`",
        {"metrics.jsonl": METRICS},
        "results/demo/eval.json: no such file; evaluate the run first",
    ),
    report_on(
        "half an eval.json",
        "`eval.json` cut in half",
        {"metrics.jsonl": METRICS, "eval.json": '{"val": {"lo'},
        "results/demo/eval.json: damaged, or of another version; make it again",
    ),
    report_on(
        "another's eval.json",
        "`eval.json` of another program",
        {"metrics.jsonl": METRICS, "eval.json": "{}"},
        "results/demo/eval.json: damaged, or of another version; make it again",
    ),
    report_on(
        "half a manifest of a training",
        "`train.manifest.json` cut in half",
        {
            "metrics.jsonl": METRICS,
            "eval.json": json.dumps(EVALUATION),
            "train.manifest.json": '{"parameters": {',
        },
        "results/demo/train.manifest.json: damaged, or of another version; make it again",
    ),
    report_on(
        "a benchmark that is none",
        "`bench.json` with a list",
        {"metrics.jsonl": METRICS, "eval.json": json.dumps(EVALUATION), "bench.json": "[]"},
        "results/demo/bench.json: damaged, or of another version; make it again",
    ),
]

# --- Verification ---------------------------------------------------------------------------

MANIFEST = Path("results/demo/sample.manifest.json")


def make_manifest() -> None:
    write_files({"results/demo/samples.txt": TEXT})
    inputs, outputs = {}, digests(["results/demo/samples.txt"])
    asked = version("sample", {"top_k": 200}, inputs, 64 * "c")
    said = {"stage": "sample", "version": asked, "inputs": inputs, "parameters": {"top_k": 200}}
    MANIFEST.write_text(json.dumps({**said, "code": 64 * "c", "outputs": outputs}))


def differs(title: str, shown: str, damage: Callable[[], object], message: str) -> Mistake:
    """A result that `nanogpt verify` finds to differ."""

    def make() -> str:
        make_manifest()
        damage()
        with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as end:
            main(["verify", "results"])
        assert end.value.code == 1
        problem, _ = printed.getvalue().splitlines()  # the other line counts
        return problem

    return Mistake(title, shown, make, message)


VERIFICATION = [
    command(
        "a path that is not there",
        "verify nowhere",
        "nowhere: no such file or directory; name results or a manifest",
    ),
    command(
        "a path without manifests",
        "verify results",
        "results: no manifest there; run the workflow first",
        lambda: write_files({"results/README.md": ""}),
    ),
    differs(
        "a result that was changed",
        "`samples.txt` edited",
        lambda: write_files({"results/demo/samples.txt": "Better."}),
        "results/demo/samples.txt: sha256 532070814ac9, not 30a2bfe5d426, output of "
        "results/demo/sample.manifest.json",
    ),
    differs(
        "a result that was removed",
        "`samples.txt` removed",
        Path("results/demo/samples.txt").unlink,
        "results/demo/samples.txt: missing, output of results/demo/sample.manifest.json",
    ),
    differs(
        "half a manifest",
        "`sample.manifest.json` cut in half",
        lambda: MANIFEST.write_text('{"stage'),
        "results/demo/sample.manifest.json: cannot be read as a manifest",
    ),
    differs(
        "a manifest that was edited",
        '`"top_k": 1` in it afterwards',
        lambda: edit_json(MANIFEST, parameters={"top_k": 1}),
        "results/demo/sample.manifest.json: version a8e6caa48ed2, but its contents "
        "give 1fe728e2e728",
    ),
]

# --- Other commands -------------------------------------------------------------------------

COMMANDS = [
    command(
        "a run that there is not",
        "config fist",
        "runs: no run `fist`; did you mean `first`?",
        lambda: write_files({"config.yaml": BASE}),
    ),
    command(
        "another config file that is not there",
        "config first --config-file mine.yaml",
        "mine.yaml: no such file; run this in the project's directory",
    ),
    workflow(
        "a target of a run that there is not",
        code("snakemake results/bok/samples.txt"),
        "results/bok/samples.txt",
        "runs: no run `bok`; did you mean `book`?",
        "texts/a.txt",
    ),
    command(
        "tokens of nothing",
        "tokenize results/datasets/book text",
        "results/datasets/book: no such file; make the dataset or model again",
    ),
    command(
        "tokens of an unknown letter",
        "tokenize results/demo/model abx",
        "the tokenizer's vocabulary of 5 characters lacks 'x' (U+0078); leave it out",
        make_model,
    ),
    command(
        "tokens of a file that is not there",
        "tokenize results/demo/model FILE:a.txt",
        "a.txt: no such file; put a text there or correct the path",
        make_model,
    ),
    command(
        "tokens of what is not UTF-8",
        f"tokenize results/demo/model {NO_UTF8}",
        "not UTF-8: 'utf-32-le' codec can't encode character '\\udce9' in position 3: "
        "surrogates not allowed",
        make_model,
    ),
    command(
        "an export to a file",
        "export dataset results/datasets/book book.txt",
        "book.txt: no directory can be made there: File exists; name another",
        make_dataset,
    ),
    command(
        "an export to below a file",
        "export dataset results/datasets/book book.txt/data",
        "book.txt/data: no directory can be made there: Not a directory; name another",
        make_dataset,
    ),
    command(
        "an export of nothing",
        "export dataset results/datasets/book data/book",
        "results/datasets/book: no dataset here; meta.json is missing: make the "
        "dataset, or name the directory of one",
    ),
]

KINDS = {
    "The file config.yaml": CONFIG_FILES,
    "Settings": SETTINGS,
    "Sweeps": SWEEPS,
    "Texts": TEXTS,
    "Tokenizers": TOKENIZERS,
    "Datasets": DATASETS,
    "Models": MODELS,
    "Prompts and sampling": PROMPTS,
    "Devices and training": TRAINING,
    "Downloads": DOWNLOADS,
    "Reports": REPORTS,
    "What `nanogpt verify` finds": VERIFICATION,
    "Commands": COMMANDS,
}


def page() -> str:
    """docs/ERRORS.md."""
    lines = [
        "# Errors, and what to do",
        "",
        "A mistake ends a command or a job with exit code 1 and one line: `error:` and a message",
        "from this page. Search it for words that are no names of yours.",
        "",
        "Printed by `python tests/errors.py`, and not to be edited by hand; a test makes each of",
        "these mistakes. HOST is the name of a server.",
    ]
    for kind, mistakes in KINDS.items():
        lines += ["", f"## {kind}", "", "| what is wrong | what is said |", "|---|---|"]
        lines += [f"| {m.title}: {m.shown} | {code(m.message)} |" for m in mistakes]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(page().encode("utf-8"))
