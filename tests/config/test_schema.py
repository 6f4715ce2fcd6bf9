"""Settings: what is wrong gets one line that names it; what is right resolves as documented."""

import itertools
import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nanogpt.config.loading import find_texts, load, read, read_mapping
from nanogpt.config.patterns import NAME
from nanogpt.config.reference import describe_run, json_schema, settings_page
from nanogpt.config.resolving import bench_runs, corpus_of, expand, resolve_run, run_names
from nanogpt.config.schema import (
    Config,
    Corpus,
    EvalSettings,
    ModelSettings,
    SampleSettings,
    TrainSettings,
)
from nanogpt.errors import UserError, plural

ROOT = Path(__file__).resolve().parents[2]

BASE = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}}
models: {tiny: {n_layer: 1, n_head: 2, n_embd: 4, block_size: 8}}
runs: {first: {dataset: letters}}
"""


def load_yaml(text, texts=()):
    """Check BASE with the top-level keys of `text` put in or replaced."""
    return load({**yaml.safe_load(BASE), **(yaml.safe_load(text) or {})}, texts)


def message_of(text, texts=()):
    """The message that a wrong config gets."""
    with pytest.raises(UserError) as error:
        load_yaml(text, texts)
    return str(error.value)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty directory in which config.yaml and resources/texts/ can be put."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources" / "texts").mkdir(parents=True)
    return tmp_path


# --- What is wrong --------------------------------------------------------------------------

WRONG = {
    # An unknown key at every level, with the nearest name.
    "top level": ("run: {}", ["run: unknown setting", "mean `runs`"]),
    "a group": ("defaults: {trian: {}}", ["defaults.trian", "mean `train`"]),
    "group at top": ("train: {max_iter: 3}", ["train.max_iter:", "mean `max_iters`"]),
    "defaults": ("defaults: {train: {leaning_rate: 1}}", ["leaning_rate", "mean `learning_rate`"]),
    "defaults' model": ("defaults: {model: {n_layr: 1}}", ["model.n_layr", "mean `n_layer`"]),
    "model": ("models: {m: {n_embed: 1}}", ["models.m.n_embed", "mean `n_embd`"]),
    "corpus": ("corpora: {c: {urll: x}}", ["corpora.c.urll", "mean `url`"]),
    "dataset": ("datasets: {d: {tokeniser: char}}", ["d.tokeniser", "mean `tokenizer`"]),
    "run": ("runs: {r: {datset: letters}}", ["runs.r.datset", "mean `dataset`"]),
    "run's train": ("runs: {r: {train: {beta3: 1}}}", ["r.train.beta3", "mean `beta"]),
    "run's eval": ("runs: {r: {eval: {eval_iter: 1}}}", ["eval_iter:", "mean `eval_iters`"]),
    "run's sample": ("runs: {r: {sample: {topk: 1}}}", ["r.sample.topk", "mean `top_k`"]),
    "run's model": ("runs: {r: {model: {preseet: x}}}", ["r.model.preseet", "mean `preset`"]),
    "report": ("report: {run: [first]}", ["report.run", "mean `runs`"]),
    "preset in a preset": ("models: {m: {preset: tiny}}", ["models.m.preset", "`n_layer`"]),
    "nothing near": ("zzz: 1", ["zzz: unknown setting", "`corpora`", "`runs`"]),
    # Users' names that are settings' names as well.
    "a run called train": ("runs: {train: {modle: {}}}", ["runs.train.modle", "mean `model`"]),
    "a model called activation": (
        "models: {activation: {n_layr: 1}}",
        ["models.activation.n_layr", "mean `n_layer`"],
    ),
    "a corpus called builtin": ("corpora: {builtin: {urll: x}}", ["builtin.urll", "mean `url`"]),
    # Types.
    "word for number": ("models: {m: {n_layer: four}}", ["m.n_layer", "integer", "'four'"]),
    "fraction for count": ("models: {m: {n_layer: 2.5}}", ["m.n_layer", "integer", "2.5"]),
    "yes for a count": ("models: {m: {n_layer: yes}}", ["m.n_layer", "number", "yes or no"]),
    "no for a count": ("train: {seed: no}", ["train.seed", "number", "yes or no"]),
    "yes for a number": ("train: {learning_rate: yes}", ["learning_rate", "yes or no"]),
    "yes where none is allowed": ("train: {lr_decay_iters: yes}", ["lr_decay_iters", "yes or no"]),
    "yes for a run's number": ("runs: {r: {eval: {batch_size: on}}}", ["r.eval.batch_size"]),
    "number for yes or no": ("models: {m: {bias: 2}}", ["models.m.bias", "boolean", "2"]),
    "none for a number": ("train: {max_iters: null}", ["train.max_iters", "integer"]),
    "list for a number": ("train: {max_iters: [1]}", ["train.max_iters", "integer"]),
    "number for a prompt": ("sample: {start: 5}", ["sample.start", "text", "quotes", "5"]),
    "word for a list": ("report: {runs: first}", ["report.runs", "list", "'first'"]),
    "list for runs": ("runs: [first]", ["runs", "mapping", "[first]"]),
    "word for a run": ("runs: {r: letters}", ["runs.r", "'letters'"]),
    "number for a model": ("defaults: {model: 3}", ["defaults.model", "3"]),
    "nothing for a corpus": ("corpora: {c: }", ["corpora.c"]),
    "number for a name": ("runs: {2024: {dataset: letters}}", ["runs.2024", "text", "quotes"]),
    "number for a top-level name": ("2024: {}", ["2024"]),
    # Ranges.
    "no layers": ("models: {m: {n_layer: 0}}", ["m.n_layer", "1", "found 0"]),
    "all dropped": ("models: {m: {dropout: 1}}", ["m.dropout", "less than 1", "found 1"]),
    "negative dropout": ("models: {m: {dropout: -0.1}}", ["m.dropout", "-0.1"]),
    "no steps": ("train: {max_iters: 0}", ["train.max_iters", "found 0"]),
    "no learning": ("train: {learning_rate: 0}", ["train.learning_rate", "greater than 0"]),
    "negative in a string": ("train: {learning_rate: '-1e-3'}", ["learning_rate", "'-1e-3'"]),
    "beta of one": ("train: {beta2: 1}", ["train.beta2", "less than 1"]),
    "negative seed": ("train: {seed: -1}", ["train.seed", "-1"]),
    "seed of more than 64 bits": ("train: {seed: 18446744073709551616}", ["train.seed"]),
    "everything held out": ("datasets: {d: {corpus: text, val_ratio: 1}}", ["d.val_ratio"]),
    "nothing held out": ("datasets: {d: {corpus: text, val_ratio: 0}}", ["d.val_ratio"]),
    "milestone before the first step": ("train: {milestones: [0]}", ["milestones.0", "found 0"]),
    "milestone that is no step": ("train: {milestones: [5, 2.5]}", ["milestones.1", "2.5"]),
    "word for a milestone": ("train: {milestones: [all]}", ["milestones.0", "integer", "'all'"]),
    "yes for a milestone": ("train: {milestones: [yes]}", ["milestones.0", "yes or no"]),
    "number for milestones": ("train: {milestones: 500}", ["train.milestones", "list", "500"]),
    "no temperature": ("sample: {temperature: 0}", ["sample.temperature", "0.000001"]),
    "negative top_k": ("sample: {top_k: -1}", ["sample.top_k", "-1"]),
    "empty prompt": ("sample: {start: ''}", ["sample.start", "at least 1 character"]),
    "NaN": ("train: {learning_rate: .nan}", ["train.learning_rate", "finite", "nan"]),
    "NaN in a string": ("train: {weight_decay: nan}", ["train.weight_decay", "'nan'"]),
    "infinity": ("train: {grad_clip: .inf}", ["train.grad_clip", "finite", "inf"]),
    # Choices.
    "dtype": ("train: {dtype: float16}", ["train.dtype", "'bfloat16'", "'float16'"]),
    "device": ("train: {device: gpu}", ["train.device", "cuda", "'gpu'"]),
    "activation": ("models: {m: {activation: relu}}", ["m.activation", "'gelu'", "'relu'"]),
    "tokenizer": (
        "datasets: {d: {corpus: text, tokenizer: word}}",
        ["d.tokenizer: no tokenizer or dataset `word`", "`char`", "`gpt2`", "`d`"],
    ),
    "tokenizer of itself": (
        "datasets: {d: {corpus: text, tokenizer: d}}",
        ["d.tokenizer: a circle: d -> d", "char, bpe, gpt2 or byte"],
    ),
    "tokenizers in a circle": (
        "datasets: {d: {corpus: text, tokenizer: e}, e: {corpus: text, tokenizer: d}}",
        ["d.tokenizer: a circle: d -> e -> d"],
    ),
    "a vocabulary of bytes alone": ("datasets: {d: {vocab_size: 256}}", ["vocab_size", "257"]),
    "a dataset called as a tokenizer": (
        "datasets: {byte: {corpus: text}}",
        ["datasets: `byte` is a tokenizer"],
    ),
    "a digest of several local files": (
        f"corpora: {{c: {{files: [a, b], sha256: {'a' * 64}}}}}",
        ["corpora.c", "sha256", "several"],
    ),
    "split": ("datasets: {d: {split: random}}", ["d.split", "'document'", "'random'"]),
    "keep": ("train: {keep: all}", ["train.keep", "'best'", "'last'", "'all'"]),
    "built-in corpus": ("corpora: {c: {builtin: play}}", ["c.builtin", "'playwright'", "'play'"]),
    # Corpora.
    "no source": ("corpora: {c: {}}", ["corpora.c", "exactly one of url, files and builtin"]),
    "two sources": (
        "corpora: {c: {url: 'http://a/b', files: f}}",
        ["corpora.c", "exactly one of url, files and builtin"],
    ),
    "three sources": (
        "corpora: {c: {url: 'http://a/b', files: f, builtin: playwright}}",
        ["corpora.c", "exactly one"],
    ),
    "unknown scheme": ("corpora: {c: {url: 'ftp://a/b'}}", ["corpora.c.url", "http(s)"]),
    "url without a file": ("corpora: {c: {url: 'http://a/'}}", ["corpora.c.url", "`http://a/`"]),
    "url that leaves the directory": ("corpora: {c: {url: 'http://a/b/..'}}", ["corpora.c.url"]),
    "range from high to low": ("corpora: {c: {url: 'http://a/[2-1].txt'}}", ["c.url", "lowest"]),
    "two files of one name": (
        "corpora: {c: {url: ['http://a/x', 'http://b/x']}}",
        ["corpora.c", "same name"],
    ),
    "a digest of several files": (
        f"corpora: {{c: {{url: ['http://a/x', 'http://a/y'], sha256: {'a' * 64}}}}}",
        ["corpora.c", "sha256", "several"],
    ),
    "number for files": ("corpora: {c: {files: 3}}", ["corpora.c.files", "list"]),
    "empty path": ("corpora: {c: {files: ['']}}", ["corpora.c.files.0", "at least 1"]),
    "no files": ("corpora: {c: {files: []}}", ["corpora.c", "exactly one"]),
    "errors": ("corpora: {c: {files: f, errors: ignore}}", ["c.errors", "'replace'", "'ignore'"]),
    "newlines": ("corpora: {c: {files: f, newlines: crlf}}", ["c.newlines", "'lf'", "'crlf'"]),
    "short sha256": ("corpora: {c: {files: f, sha256: abc}}", ["corpora.c.sha256", "'abc'"]),
    "unknown encoding": ("corpora: {c: {files: f, encoding: utf-9}}", ["encoding", "utf-9"]),
    # Names that name nothing.
    "unknown corpus": (
        "datasets: {d: {corpus: texd}}",
        ["datasets.d.corpus: no corpus `texd`", "mean `text`"],
    ),
    "corpus of the dataset's name": ("datasets: {tex: {}}", ["datasets.tex.corpus", "mean `text`"]),
    "unknown dataset": (
        "runs: {r: {dataset: leters}}",
        ["runs.r.dataset: no dataset `leters`", "mean `letters`"],
    ),
    "dataset of the run's name": ("runs: {latters: }", ["runs.latters.dataset", "mean `letters`"]),
    "unknown model": (
        "runs: {r: {dataset: letters, model: tinny}}",
        ["runs.r.model: no model `tinny`", "mean `tiny`"],
    ),
    "unknown default model": ("defaults: {model: tinny}", ["defaults.model", "mean `tiny`"]),
    "unknown model on the command line": ("model: tinny", ["model", "`tinny`", "mean `tiny`"]),
    "unknown run in the report": (
        "report: {runs: [first, fist]}",
        ["report.runs: no run `fist`", "mean `first`"],
    ),
    "nothing to choose from": (
        "{models: {}, defaults: {model: x}}",
        ["defaults.model", "`x`", "there is none"],
    ),
    # Names that are no names.
    "parent directory": ("corpora: {'../x': {files: f}}", ["corpora: `../x`", "no name"]),
    "slash": ("runs: {'a/b': {dataset: letters}}", ["runs: `a/b`", "no name"]),
    "space": ("datasets: {'my book': {corpus: text}}", ["datasets: `my book`", "no name"]),
    "dot in front": ("models: {'.m': {}}", ["models: `.m`", "no name"]),
    "two dots": ("runs: {'..': {dataset: letters}}", ["runs: `..`", "no name"]),
    "dash in front": ("runs: {'-n': {dataset: letters}}", ["runs: `-n`", "no name"]),
    "empty name": ("runs: {'': {dataset: letters}}", ["runs: ``", "no name"]),
    "letter with an accent": ("models: {é: {}}", ["models: `é`", "no name"]),
    "line break": ('runs: {"a\\nb": {dataset: letters}}', ["runs:", "no name"]),
    "line break at the end": ('runs: {"a\\n": {dataset: letters}}', ["runs:", "no name"]),
    "run datasets": ("runs: {datasets: {dataset: letters}}", ["`datasets`", "reserved"]),
    "run report": ("runs: {report: {dataset: letters}}", ["`report`", "reserved"]),
    "run gpt2": ("runs: {gpt2: {dataset: letters}}", ["`gpt2`", "reserved"]),
    "dataset gpt2-xl": ("datasets: {gpt2-xl: {corpus: text}}", ["`gpt2-xl`", "reserved"]),
    "dataset report": ("datasets: {report: {corpus: text}}", ["`report`", "reserved"]),
    # Settings that do not go together.
    "heads that do not divide": (
        "runs: {r: {dataset: letters, model: {n_embd: 10, n_head: 3}}}",
        ["runs.r.model", "n_embd 10", "n_head 3"],
    ),
    "milestone after the last step": (
        "runs: {r: {dataset: letters, train: {max_iters: 500, milestones: [500, 501]}}}",
        ["runs.r.train: milestones: step 501", "max_iters 500"],
    ),
    "milestone of the defaults after a run's last step": (
        "{defaults: {train: {milestones: [200]}}, "
        "runs: {r: {dataset: letters, train: {max_iters: 150}}}}",
        ["runs.r.train: milestones: step 200", "max_iters 150"],
    ),
    "heads of preset and run": (
        "runs: {r: {dataset: letters, model: {preset: tiny, n_head: 3}}}",
        ["runs.r.model", "n_embd 4", "n_head 3"],
    ),
    "heads of a dataset's run": ("model: {n_embd: 10, n_head: 4}", ["n_embd 10", "n_head 4"]),
    "min_lr": (
        "runs: {r: {dataset: letters, train: {min_lr: 0.1, learning_rate: 0.01}}}",
        ["runs.r.train", "min_lr 0.1", "learning_rate 0.01"],
    ),
    "min_lr of another layer": ("train: {learning_rate: 1e-5}", ["min_lr 0.0001", "1e-05"]),
    "warm-up of all steps": (
        "runs: {r: {dataset: letters, train: {warmup_iters: 50, max_iters: 50}}}",
        ["runs.r.train", "warmup_iters 50", "ends at 50"],
    ),
    "warm-up beyond the decay": (
        "train: {warmup_iters: 200, lr_decay_iters: 150, max_iters: 1000}",
        ["warmup_iters 200", "ends at 150"],
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_in_one_line(text, words):
    message = message_of(text)
    for word in words:
        assert word in message
    assert len(message.splitlines()) == 1


def test_of_several_mistakes_the_first_is_named_and_the_others_counted():
    message = message_of("{train: {max_iter: 1, beta3: 1}, eval: {sead: 1}}")
    assert message.startswith("train.max_iter: ")
    assert message.endswith("(and 2 more)")


FILES = {
    "a list": (b"- runs", ["mapping"]),
    "a word": (b"runs", ["mapping"]),
    "an open bracket": (b"runs: {", ["not YAML", "line 1"]),
    "two colons": (b"runs:\n  a: b: c\n", ["not YAML", "line 2"]),
    "a tab": (b"runs:\n\ta: {}\n", ["not YAML", "line 2"]),
    "no UTF-8": (b"# \xff\nruns: {}\n", ["not UTF-8", "0xff at 2"]),
    "a zero byte": (b"runs:\0", ["not YAML", "#x0000"]),
    "a date that there is not": (b"runs: {2024-13-45: {}}", ["date", "month", "quotes"]),
    "too many brackets": (b"[" * 5000, ["nested too deeply"]),
    "a key twice": (b"runs: {}\ntrain: {}\nruns: {}\n", ["line 3: `runs`", "in line 1"]),
    "a key twice in a line": (b"train: {seed: 1, seed: 2}\n", ["line 1: `seed`", "in line 1"]),
    "a key twice in a list": (b"runs:\n- a: 1\n  a: 2\n", ["line 3: `a`", "in line 2"]),
    "an unknown alias": (b"runs: *base", ["not YAML", "base"]),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_config_is_named_in_one_line(project, content, words):
    (project / "config.yaml").write_bytes(content)
    with pytest.raises(UserError) as error:
        read()
    for word in ["config.yaml: ", *words]:
        assert word in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_config_file_is_named(project):
    with pytest.raises(UserError, match=r"^mine\.yaml: no such file; run this in .* directory$"):
        read("mine.yaml")
    assert not list(project.glob("*.yaml"))


def test_a_directory_for_the_config_file_is_named(project):
    with pytest.raises(UserError, match="resources: "):
        read(project / "resources")


def test_nothing_in_a_config_file_is_executed(project):
    (project / "config.yaml").write_text("runs: !!python/object/apply:os.mkdir [executed]\n")
    with pytest.raises(UserError, match="not YAML"):
        read()
    assert not (project / "executed").exists()


def test_a_key_of_an_anchor_may_be_given_again_where_the_anchor_is_merged(project):
    (project / "config.yaml").write_text(
        "models:\n"
        "  small: &small {n_layer: 1, n_head: 1}\n"
        "  wide: &wide {n_embd: 8}\n"
        "  large: {<<: *small, <<: *wide, n_layer: 2}\n"
    )
    assert read_mapping()["models"]["large"] == {"n_layer": 2, "n_head": 1, "n_embd": 8}


def test_numbers_take_the_plural_but_for_one():
    assert [plural(number, "token") for number in (0, 1, 2, 2000)] == [
        "0 tokens",
        "1 token",
        "2 tokens",
        "2,000 tokens",
    ]


def test_an_empty_config_file_is_an_empty_config(project):
    (project / "config.yaml").write_text("# nothing yet\n")
    assert read() == Config()


# --- Numbers in strings ---------------------------------------------------------------------


@pytest.mark.parametrize("written", ["1e-3", "'1e-3'", "'0.001'", "0.001", "1.0e-3"])
def test_numbers_in_strings_are_numbers(written):
    run = resolve_run(load_yaml(f"train: {{learning_rate: {written}}}"), "first")
    assert run.train.learning_rate == 1e-3


@pytest.mark.parametrize("written", ["2000", "'2000'", "2e3", "'2e3'", "2000.0", "'2000.0'"])
def test_whole_numbers_may_be_written_in_any_way(written):
    assert resolve_run(load_yaml(f"train: {{max_iters: {written}}}"), "first").train.max_iters == (
        2000
    )


@pytest.mark.parametrize("written", ["[5, 10]", "['5', '10']", "['5', '1e1']", "[5.0, 1e1]"])
def test_milestones_are_steps_written_in_any_way_up_to_the_last(written):
    config = load_yaml(f"train: {{max_iters: 10, warmup_iters: 0, milestones: {written}}}")
    assert resolve_run(config, "first").train.milestones == [5, 10]


@pytest.mark.parametrize(
    ("written", "value"), [("yes", True), ("'true'", True), ("no", False), ("'False'", False)]
)
def test_yes_and_no_may_stand_in_strings(written, value):
    assert resolve_run(load_yaml(f"model: {{bias: {written}}}"), "first").model.bias is value


# --- Precedence -----------------------------------------------------------------------------

LAYERS = """
models:
  shallow: {n_layer: 2, n_head: 2, n_embd: 4}
  deep: {n_layer: 9}
defaults:
  model: {preset: shallow, block_size: 16}
  train: {max_iters: 300, batch_size: 3, beta1: 0.3}
runs:
  first:
    dataset: letters
    model: {preset: deep, n_embd: 8}
    train: {batch_size: 4, beta1: 0.4}
train: {beta1: 0.5}
model: {dropout: 0.5}
"""


def test_the_command_line_beats_the_run_beats_preset_and_defaults_beat_what_is_built_in():
    run = resolve_run(load_yaml(LAYERS), "first")
    assert run.train.beta1 == 0.5  # command line over run over defaults
    assert run.train.batch_size == 4  # run over defaults
    assert run.train.max_iters == 300  # defaults over built in
    assert run.train.beta2 == TrainSettings().beta2  # built in
    assert run.model.dropout == 0.5  # command line over built in
    assert run.model.n_embd == 8  # the run's own over its preset and that of the defaults
    assert run.model.n_layer == 9  # the run's preset over that of the defaults
    assert run.model.n_head == 2  # the defaults' preset over built in
    assert run.model.block_size == 16  # defaults beside their preset over built in
    assert (run.eval, run.sample) == (EvalSettings(), SampleSettings())


def test_a_preset_beats_the_defaults_settings():
    run = resolve_run(
        load_yaml(
            "{defaults: {model: {n_layer: 7}}, runs: {first: {dataset: letters, model: tiny}}}"
        ),
        "first",
    )
    assert run.model.n_layer == 1


def test_a_preset_on_the_command_line_beats_the_runs_own_settings():
    run = resolve_run(
        load_yaml("{model: tiny, runs: {first: {dataset: letters, model: {n_layer: 7}}}}"), "first"
    )
    assert run.model.n_layer == 1


def test_a_value_equal_to_the_built_in_one_still_beats_a_weaker_source():
    run = resolve_run(
        load_yaml(
            "{defaults: {train: {seed: 1}}, runs: {first: {dataset: letters, train: {seed: 1337}}}}"
        ),
        "first",
    )
    assert run.train.seed == 1337


def test_a_models_name_is_short_for_its_preset():
    short = load_yaml("runs: {first: {dataset: letters, model: tiny}}")
    long = load_yaml("runs: {first: {dataset: letters, model: {preset: tiny}}}")
    assert resolve_run(short, "first") == resolve_run(long, "first")
    assert resolve_run(short, "first").model.n_embd == 4


def test_one_runs_settings_do_not_touch_another():
    config = load_yaml("runs: {a: {dataset: letters, train: {seed: 1}}, b: {dataset: letters}}")
    assert resolve_run(config, "b").train == TrainSettings()


# --- Names of runs --------------------------------------------------------------------------


def test_a_run_may_name_only_its_dataset():
    run = resolve_run(load_yaml("runs: {only: {dataset: letters}}"), "only")
    assert run.name == "only"
    assert run.dataset == "letters"
    assert (run.model, run.train) == (ModelSettings(), TrainSettings())


def test_a_dataset_is_a_run_with_the_defaults():
    config = load_yaml("defaults: {train: {max_iters: 300}}")
    run = resolve_run(config, "letters")
    assert (run.name, run.dataset, run.train.max_iters) == ("letters", "letters", 300)
    assert run_names(config) == ["first", "letters"]


def test_a_run_that_names_no_dataset_has_that_of_its_name():
    config = load_yaml("runs: {letters: {train: {max_iters: 300}}}")
    run = resolve_run(config, "letters")
    assert (run.dataset, run.train.max_iters) == ("letters", 300)
    assert run_names(config) == ["letters"]


def test_an_empty_entry_is_a_run_or_dataset_with_the_defaults():
    config = load_yaml("{datasets: {text: }, runs: {text: }}")
    assert resolve_run(config, "text").dataset == "text"
    assert corpus_of(config, "text") == "text"


def test_a_dropped_text_is_a_corpus_a_character_dataset_and_a_run():
    config = load_yaml("defaults: {train: {max_iters: 300}}", texts=["mybook"])
    assert config.corpora["mybook"] == Corpus(files="resources/texts/mybook.txt")
    assert config.datasets["mybook"].tokenizer == "char"
    run = resolve_run(config, "mybook")
    assert (run.dataset, run.train.max_iters) == ("mybook", 300)


def test_a_dropped_text_may_stand_in_the_report_and_be_a_runs_dataset():
    config = load_yaml("{runs: {long: {dataset: mybook}}, report: {runs: [mybook]}}", ["mybook"])
    assert resolve_run(config, "long").dataset == "mybook"
    assert config.report.runs == ["mybook"]


@pytest.mark.parametrize("name", ["text", "letters", "first"])
def test_a_dropped_text_that_shares_its_name_is_an_error(name):
    message = message_of("", texts=["other", name])
    assert message.startswith(f"resources/texts/{name}.txt: ")
    assert "run, dataset or corpus" in message
    assert "rename" in message
    assert len(message.splitlines()) == 1


def test_a_dropped_text_with_a_reserved_name_is_an_error():
    assert "`gpt2` is a reserved name" in message_of("", texts=["gpt2"])


def test_texts_are_found_by_their_names(project):
    texts = project / "resources" / "texts"
    for name in ["b.txt", "a.1.txt", "README.md", "two words.txt", ".hidden.txt", "-n.txt"]:
        (texts / name).write_text("text")
    assert find_texts() == ["-n", "a.1", "b", "two words"]
    assert find_texts(project / "nowhere") == []


def test_read_finds_the_texts(project):
    (project / "config.yaml").write_text("defaults: {train: {max_iters: 300}}")
    (project / "resources" / "texts" / "mybook.txt").write_text("text")
    assert run_names(read()) == ["mybook"]


def test_an_unknown_run_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"no run `fist`; did you mean `first`\?"):
        resolve_run(load_yaml(""), "fist")


# --- Sweeps ---------------------------------------------------------------------------------

SWEEPING = """
corpora: {text: {files: text.txt}}
datasets: {letters: {corpus: text}, words: {corpus: text}}
models:
  tiny: {n_layer: 1, n_head: 2, n_embd: 4}
  small: {n_layer: 2, n_head: 2, n_embd: 8, dropout: 0.3}
"""


def load_sweep(sweep, entry="dataset: letters", more="", texts=()):
    """A config whose run `r` has this sweep beside `entry`; `more`: other top-level keys."""
    config = {**yaml.safe_load(SWEEPING), **(yaml.safe_load(more) or {})}
    run = {**yaml.safe_load(f"{{{entry}}}"), "sweep": yaml.safe_load(sweep)}
    return load({**config, "runs": {"r": run, **config.get("runs", {})}}, texts)


SWEPT = {
    "a seed": ("{seed: [1, 2]}", ["r.seed-1", "r.seed-2"]),
    "the first key varies slowest": (
        "{seed: [2, 1], model: [tiny, small]}",
        [
            "r.seed-2.model-tiny",
            "r.seed-2.model-small",
            "r.seed-1.model-tiny",
            "r.seed-1.model-small",
        ],
    ),
    "keys as they are written": (
        "{model: [tiny, small], seed: [2]}",
        ["r.model-tiny.seed-2", "r.model-small.seed-2"],
    ),
    "datasets": ("{dataset: [words, letters]}", ["r.dataset-words", "r.dataset-letters"]),
    "the last part of a key": (
        "{train.learning_rate: [1e-3], model.n_layer: [3], sample.temperature: [0.5]}",
        ["r.learning_rate-1e-3.n_layer-3.temperature-0.5"],
    ),
    "all groups": (
        "{eval.eval_iters: [5], bench.steps: [6], train.keep: [last]}",
        ["r.eval_iters-5.steps-6.keep-last"],
    ),
    "strings as they are written": (
        "{train.learning_rate: [1e-3, '0.0020', '3']}",
        ["r.learning_rate-1e-3", "r.learning_rate-0.0020", "r.learning_rate-3"],
    ),
    "numbers as YAML writes them": (
        "{train.beta1: [0.50, .25, 0, 1.0e-5]}",
        ["r.beta1-0.5", "r.beta1-0.25", "r.beta1-0", "r.beta1-1.0e-05"],
    ),
    "yes and no": ("{model.bias: [yes, no]}", ["r.bias-true", "r.bias-false"]),
    "yes and no in quotes": ("{model.bias: ['yes', 'no']}", ["r.bias-yes", "r.bias-no"]),
    "nothing": (
        "{train.lr_decay_iters: [null, 300]}",
        ["r.lr_decay_iters-none", "r.lr_decay_iters-300"],
    ),
    "the same last part twice": (
        "{eval.seed: [1, 2], sample.seed: [1, 2]}",
        ["r.seed-1.seed-1", "r.seed-1.seed-2", "r.seed-2.seed-1", "r.seed-2.seed-2"],
    ),
    "long forms": ("{model.preset: [tiny], train.seed: [1]}", ["r.preset-tiny.seed-1"]),
}


@pytest.mark.parametrize(("sweep", "names"), SWEPT.values(), ids=SWEPT.keys())
def test_a_sweep_is_a_run_of_each_combination_named_after_what_it_is_given(sweep, names):
    config = load_sweep(sweep)
    assert list(config.runs) == names
    assert run_names(config) == [*names, "letters", "words"]
    assert expand(config, ["letters", "r"]) == ["letters", *names]


def test_a_run_of_a_sweep_is_as_if_it_were_written_by_hand():
    swept = load_sweep(
        "{dataset: [letters, words], model: [tiny, small], seed: [1, 2], train.beta1: [0.5, 6e-1]}",
        "train: {max_iters: 400, seed: 9}, model: {n_embd: 12}, sample: {seed: 5}",
        "{defaults: {model: {n_head: 1}}, eval: {eval_iters: 3}}",
    )
    assert len(swept.runs) == 16
    combinations = itertools.product(["letters", "words"], ["tiny", "small"], [1, 2], [0.5, 0.6])
    for name, (dataset, preset, seed, beta1) in zip(swept.runs, combinations, strict=True):
        by_hand = {
            "dataset": dataset,
            "model": {"preset": preset, "n_embd": 12},
            "train": {"max_iters": 400, "seed": seed, "beta1": beta1},
            "sample": {"seed": 5},
        }
        written = load(
            {
                **yaml.safe_load(SWEEPING),
                "defaults": {"model": {"n_head": 1}},
                "eval": {"eval_iters": 3},
                "runs": {name: by_hand},
            }
        )
        assert resolve_run(swept, name) == resolve_run(written, name)


def test_a_swept_preset_replaces_the_entrys_and_its_own_settings_stay_on_top():
    config = load_sweep(
        "{model: [tiny, small]}", "dataset: letters, model: {preset: small, bias: yes}"
    )
    tiny = resolve_run(config, "r.model-tiny").model
    assert (tiny.n_layer, tiny.dropout, tiny.bias) == (1, ModelSettings().dropout, True)
    small = resolve_run(config, "r.model-small").model
    assert (small.n_layer, small.dropout, small.bias) == (2, 0.3, True)


def test_a_swept_setting_is_above_the_preset_and_the_entrys_own_settings():
    config = load_sweep(
        "{model.dropout: [0.1, 0.2]}", "dataset: letters, model: {preset: small, dropout: 0}"
    )
    assert [resolve_run(config, name).model.dropout for name in config.runs] == [0.1, 0.2]
    assert resolve_run(config, "r.dropout-0.1").model.n_layer == 2


def test_the_command_line_overrides_what_is_swept():
    config = load_sweep("{seed: [1, 2]}", more="train: {seed: 7}")
    assert [resolve_run(config, name).train.seed for name in config.runs] == [7, 7]


def test_a_description_names_the_entry_of_a_sweep_as_the_source():
    config = load_sweep("{model: [tiny], seed: [1]}", "dataset: letters, train: {max_iters: 400}")
    description = describe_run(config, "r.model-tiny.seed-1")
    for setting, source in [("max_iters", "runs.r"), ("n_layer", "models.tiny")]:
        assert line_of(description, setting).endswith(f"# {source}")
    assert "  seed: 1                              # runs.r\n" in description


def test_a_sweep_that_names_no_dataset_has_that_of_its_own_name_which_is_then_no_run():
    config = load({**yaml.safe_load(SWEEPING), "runs": {"letters": {"sweep": {"seed": [1, 2]}}}})
    assert [resolve_run(config, name).dataset for name in config.runs] == ["letters", "letters"]
    assert run_names(config) == ["letters.seed-1", "letters.seed-2", "words"]


def test_dropped_texts_can_be_swept():
    config = load_sweep("{dataset: [mine, yours]}", texts=["mine", "yours"])
    assert resolve_run(config, "r.dataset-yours").dataset == "yours"


def test_a_sweep_is_no_run_and_some_of_its_runs_are_told():
    seeds = "runs: `r` is a sweep; its runs are `r.seed-1`, `r.seed-2`, `r.seed-3`"
    for last, more in [(3, ""), (4, " and 1 more"), (2000, " and 1,997 more")]:
        with pytest.raises(UserError) as error:
            resolve_run(load_sweep(f"{{seed: {[*range(1, last + 1)]}}}"), "r")
        assert str(error.value) == seeds + more
    with pytest.raises(UserError, match="`words` is a sweep"):
        resolve_run(load_sweep("{seed: [1]}", more="runs: {words: {sweep: {seed: [1]}}}"), "words")


def test_a_misspelt_run_of_a_sweep_gets_the_nearest_name():
    with pytest.raises(UserError, match=r"no run `r\.seed_12`; did you mean `r\.seed-12`\?"):
        resolve_run(load_sweep(f"{{seed: {[*range(30)]}}}"), "r.seed_12")


def test_a_sweep_in_the_report_stands_for_its_runs():
    more = "{{runs: {{last: {{dataset: words, sweep: {{seed: [7]}}}}}}, report: {{runs: {}}}}}"
    config = load_sweep("{seed: [2, 1]}", more=more.format("[words, r, last.seed-7]"))
    assert config.report.runs == ["words", "r.seed-2", "r.seed-1", "last.seed-7"]
    for runs, message in [
        ("[r, last, r]", "report.runs: `r` stands there twice; name it once"),
        ("[r.seed-1, r.seed-1]", "report.runs: `r.seed-1` stands there twice; name it once"),
        (
            "[r.seed-1, words, r]",
            "report.runs: `r.seed-1` stands there twice, as a run of `r` too; name it once",
        ),
        ("[lasd]", "report.runs: no run `lasd`; did you mean `last`?"),
    ]:
        with pytest.raises(UserError) as error:
            load_sweep("{seed: [2, 1]}", more=more.format(runs))
        assert str(error.value) == message


# The line of each begins with `runs.r.sweep`.
WRONG_SWEEPS = {
    "nothing": (
        "",
        ": nothing is swept; name settings and their values, or leave it out (found nothing)",
    ),
    "an empty one": (
        "{}",
        ": nothing is swept; name settings and their values, or leave it out",
    ),
    "a list": ("[seed]", ": should be a mapping of settings (found [seed])"),
    "a number for a key": ("{1: [2]}", ".1: should be text; put it in quotes (found 1)"),
    "an unknown key": ("{sead: [1]}", ".sead: unknown setting; did you mean `seed`?"),
    "an unknown setting": (
        "{train.batchsize: [1]}",
        ".train.batchsize: unknown setting; did you mean `train.batch_size`?",
    ),
    "a setting without its group": (
        "{n_layer: [1]}",
        ".n_layer: unknown setting; did you mean `model.n_layer`?",
    ),
    "a setting of several groups": (
        "{eval_iters: [1]}",
        ".eval_iters: unknown setting; did you mean `train.eval_iters` or `eval.eval_iters`?",
    ),
    "nothing near": (
        "{zzz: [1]}",
        ".zzz: unknown setting; a setting is named with its group: `train.max_iters`",
    ),
    "a group": (
        "{train: [1]}",
        ".train: unknown setting; did you mean `train.seed`?",
    ),
    "no list": ("{seed: 3}", ".seed: should be a valid list (found 3)"),
    "no values": ("{seed: }", ".seed: should be a valid list (found nothing)"),
    "an empty list": ("{seed: []}", ".seed: no value; give it some, or leave it out"),
    "a list of lists": (
        "{train.milestones: [[5], [6]]}",
        ".train.milestones: a list or mapping cannot be swept (found [5]); "
        "write such runs one by one",
    ),
    "a mapping": (
        "{model: [{preset: tiny}]}",
        ".model: a list or mapping cannot be swept (found {'preset': 'tiny'}); "
        "write such runs one by one",
    ),
    "a word for a number": (
        "{seed: [1, two]}",
        ".seed: should be a valid integer, unable to parse string as an integer (found 'two')",
    ),
    "yes for a number": (
        "{train.max_iters: [yes]}",
        ".train.max_iters: a number is wanted here, not yes or no (found yes)",
    ),
    "a seed below zero": (
        "{seed: [-1]}",
        ".seed: should be greater than or equal to 0 (found -1)",
    ),
    "an unknown choice": (
        "{train.dtype: [float16]}",
        ".train.dtype: should be 'auto', 'float32' or 'bfloat16' (found 'float16')",
    ),
    "an unknown model": (
        "{model: [tiny, smal]}",
        ".model: no model `smal`; did you mean `small`?",
    ),
    "an unknown dataset": (
        "{dataset: [leters]}",
        ".dataset: no dataset `leters`; did you mean `letters`?",
    ),
    "no model": ("{model: [null]}", ".model: no model `none`; there is `tiny`, `small`"),
    "a number for a model": (
        "{model: [2024]}",
        ".model: should be text; put it in quotes (found 2024)",
    ),
    "a value twice": ("{seed: [1, 2, 1]}", ".seed: `1` stands there twice; name it once"),
    "a value twice in two ways": (
        "{train.learning_rate: [1e-3, 0.001]}",
        ".train.learning_rate: `0.001` stands there twice, as `1e-3` too; name it once",
    ),
    "yes twice in two ways": (
        "{model.bias: [yes, 'on']}",
        ".model.bias: `on` stands there twice, as `true` too; name it once",
    ),
    "a setting twice": (
        "{seed: [1], train.seed: [2]}",
        ".train.seed: `seed` is the same setting; leave one of them out",
    ),
    "a space": (
        "{sample.start: [Once upon]}",
        ".sample.start: `Once upon` cannot stand in the name of a run, which has letters, digits, "
        "dot, dash and underscore; write such runs one by one",
    ),
    "a slash": (
        "{sample.start: [a/../b]}",
        ".sample.start: `a/../b` cannot stand in the name of a run, which has letters, digits, "
        "dot, dash and underscore; write such runs one by one",
    ),
    "a colon": (
        "{train.device: ['cuda:0']}",
        ".train.device: `cuda:0` cannot stand in the name of a run, which has letters, digits, "
        "dot, dash and underscore; write such runs one by one",
    ),
    "a line break": (
        '{sample.start: ["\\n"]}',
        ".sample.start: `\\n` cannot stand in the name of a run, which has letters, digits, "
        "dot, dash and underscore; write such runs one by one",
    ),
}


@pytest.mark.parametrize(("sweep", "message"), WRONG_SWEEPS.values(), ids=WRONG_SWEEPS.keys())
def test_what_is_wrong_in_a_sweep_is_told_in_one_line(sweep, message):
    with pytest.raises(UserError) as error:
        load_sweep(sweep)
    assert str(error.value) == f"runs.r.sweep{message}"


def test_a_combination_that_does_not_go_together_is_named():
    with pytest.raises(UserError, match=r"^runs\.r\.n_embd-8\.n_head-3\.model: n_embd 8 is not"):
        load_sweep("{model.n_embd: [8], model.n_head: [2, 3]}")
    with pytest.raises(UserError, match=r"^runs\.r\.model: no model `smal`; did you mean `small`"):
        load_sweep("{seed: [1]}", "dataset: letters, model: smal")
    with pytest.raises(UserError, match=r"^runs\.r\.dataset: no dataset `leters`; did you mean"):
        load_sweep("{seed: [1]}", "dataset: leters")


@pytest.mark.parametrize(
    ("more", "texts"),
    [
        ("runs: {r.seed-2: {dataset: letters}}", []),
        ("runs: {r.seed-2: {dataset: letters, sweep: {seed: [1]}}}", []),
        ("datasets: {letters: {corpus: text}, r.seed-2: {corpus: text}}", []),
        ("", ["r.seed-2"]),
    ],
)
def test_a_run_of_a_sweep_cannot_be_called_as_another_run_dataset_or_text(more, texts):
    with pytest.raises(UserError) as error:
        load_sweep("{seed: [1, 2]}", more=more, texts=texts)
    assert str(error.value) == (
        "runs.r.sweep: one of its runs would be called `r.seed-2`, as another run, dataset or text "
        "is; rename one of them"
    )


def test_runs_of_two_sweeps_cannot_share_a_name():
    more = "runs: {r.seed-1: {dataset: letters, sweep: {model: [tiny]}}}"
    with pytest.raises(UserError, match=r"^runs\.r\.seed-1\.sweep: .* `r\.seed-1\.model-tiny`, as"):
        load_sweep("{seed: [1], model: [tiny]}", more=more)


def test_two_combinations_of_one_name_are_an_error_that_says_what_to_do():
    datasets = "datasets: {a: {corpus: text}, a.model-tiny: {corpus: text}}"
    models = "models: {tiny.model-small: {}, small: {}, tiny: {}}"
    sweep = "{dataset: [a, a.model-tiny], model: [tiny.model-small, small]}"
    with pytest.raises(UserError) as error:
        load_sweep(sweep, more=f"{datasets}\n{models}")
    assert str(error.value) == (
        "runs.r.sweep: two of its runs would be called `r.dataset-a.model-tiny.model-small`; "
        "put its keys in another order, or rename a value"
    )


def test_a_name_that_no_file_can_have_is_an_error():
    word = "a" * 192  # beside `r.start-`, 200 bytes
    assert len(next(iter(load_sweep(f"{{sample.start: [{word}]}}").runs))) == 200
    with pytest.raises(UserError) as error:
        load_sweep(f"{{sample.start: [{word}a]}}")
    assert str(error.value) == (
        f"runs.r.sweep: the name of a run, `r.start-{'a' * 72}…`, would have 201 characters, and "
        "200 are the most; shorten the names in it, or sweep fewer settings"
    )


@pytest.mark.parametrize("where", ["defaults: {sweep: {seed: [1]}}", "sweep: {seed: [1]}"])
def test_only_a_run_has_a_sweep(where):
    assert "sweep: unknown setting" in message_of(where)


# Values that look like more of a name: two combinations can give the same one.
PARTS = ["a", "a.model-a", "a.start-a", "b"]
AXES = {
    "dataset": st.sampled_from(PARTS),
    "model": st.sampled_from(PARTS),
    "seed": st.integers(0, 3),
    "eval.seed": st.integers(0, 3),
    "sample.start": st.sampled_from(PARTS),
    "sample.unknown": st.sampled_from(["error", "skip"]),
    "train.beta1": st.sampled_from([0.5, "0.5", "5e-1", 0, "0.0", 0.25]),
}


@st.composite
def sweeps(draw):
    keys = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=3, unique=True))
    return {key: draw(st.lists(AXES[key], min_size=1, max_size=3, unique=True)) for key in keys}


@settings(deadline=None, max_examples=300)
@given(st.lists(sweeps(), min_size=1, max_size=2))
def test_each_combination_has_a_name_of_its_own_or_there_is_an_error(swept):
    names = ["r", "r.seed-1"][: len(swept)]
    try:
        config = load(
            {
                "corpora": {"text": {"files": "f"}},
                "datasets": {name: {"corpus": "text"} for name in PARTS},
                "models": {name: {"n_layer": number} for number, name in enumerate(PARTS, start=1)},
                "runs": {
                    name: {"dataset": "a", "sweep": sweep}
                    for name, sweep in zip(names, swept, strict=True)
                },
            }
        )
    except UserError:
        return
    expanded = [expand(config, [name]) for name in names]
    assert list(config.runs) == [run for runs in expanded for run in runs]
    assert all(NAME.fullmatch(run) for run in config.runs)
    assert not config.runs.keys() & config.datasets.keys()
    for sweep, runs in zip(swept, expanded, strict=True):
        assert len(runs) == math.prod(map(len, sweep.values()))
        for name, combination in zip(runs, itertools.product(*sweep.values()), strict=True):
            run = resolve_run(config, name)
            found = {
                "dataset": run.dataset,
                "model": PARTS[run.model.n_layer - 1] if "model" in sweep else None,
                "seed": run.train.seed,
                "eval.seed": run.eval.seed,
                "sample.start": run.sample.start,
                "sample.unknown": run.sample.unknown,
                "train.beta1": run.train.beta1,
            }
            for key, value in zip(sweep, combination, strict=True):
                assert found[key] == (float(value) if key == "train.beta1" else value)


def test_the_schema_knows_a_sweep_and_what_it_can_name():
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json_schema())

    def is_valid(sweep):
        return check.is_valid({"runs": {"r": {"sweep": yaml.safe_load(sweep)}}})

    for good in ["{seed: [1], model: [tiny]}", "{train.learning_rate: [1e-3, 0.1]}"]:
        assert is_valid(good)
    for bad in ["{}", "{sead: [1]}", "{seed: 1}", "{seed: []}", "{seed: [[1]]}", "[seed]"]:
        assert not is_valid(bad)


# --- Benchmarks -----------------------------------------------------------------------------


def test_runs_that_differ_in_what_does_not_change_a_benchmark_share_the_first_ones():
    sweep = "{model: [tiny, small], seed: [1, 2], train.learning_rate: [1e-3, 2e-3]}"
    config = load_sweep(sweep, more="runs: {other: {dataset: letters, model: small}}")
    runs = [*config.runs]
    assert bench_runs(config, runs) == {
        run: "r.model-tiny.seed-1.learning_rate-1e-3"
        if "tiny" in run
        else "r.model-small.seed-1.learning_rate-1e-3"
        for run in runs
    }
    backwards = bench_runs(config, runs[::-1])
    assert backwards["r.model-small.seed-1.learning_rate-1e-3"] == "other"


@pytest.mark.parametrize(
    "sweep",
    [
        "{dataset: [letters, words]}",
        "{model.dropout: [0, 0.1]}",
        "{train.batch_size: [4, 8]}",
        "{train.device: [cpu, cuda]}",
        "{train.dtype: [float32, bfloat16]}",
        "{train.compile: [yes, no]}",
        "{train.deterministic: [yes, no]}",
        "{bench.batch_size: [4, 8]}",
        "{bench.data: [real, random]}",
        "{bench.steps: [4, 8]}",
        "{bench.seed: [4, 8]}",
    ],
)
def test_runs_that_differ_in_what_is_measured_have_benchmarks_of_their_own(sweep):
    config = load_sweep(sweep)
    assert bench_runs(config, [*config.runs]) == {run: run for run in config.runs}


def test_a_batch_size_of_the_benchmarks_own_is_what_counts():
    config = load_sweep("{train.batch_size: [4, 8]}", "dataset: letters, bench: {batch_size: 4}")
    assert set(bench_runs(config, [*config.runs]).values()) == {"r.batch_size-4"}
    config = load_sweep("{bench.batch_size: [null, 4]}", "dataset: letters, train: {batch_size: 4}")
    assert set(bench_runs(config, [*config.runs]).values()) == {"r.batch_size-none"}


# --- What a run resolves to -----------------------------------------------------------------


def line_of(description, setting):
    """The lines of a description that give a setting."""
    lines = [line for line in description.splitlines() if line.startswith(f"  {setting}: ")]
    return " ".join(lines)


def test_a_description_names_the_source_of_each_value():
    description = describe_run(load_yaml(LAYERS), "first")
    for setting, value, source in [
        ("beta1", "0.5", "command line"),
        ("max_iters", "300", "defaults"),
        ("beta2", "0.99", "built in"),
        ("n_embd", "8", "runs.first"),
        ("n_layer", "9", "models.deep"),
        ("n_head", "2", "models.shallow"),
        ("block_size", "16", "defaults"),
        ("dropout", "0.5", "command line"),
    ]:
        found, _, origin = line_of(description, setting).partition("#")
        assert found.split() == [f"{setting}:", value]
        assert origin.strip() == source
    assert description.startswith("dataset: letters\n")


def test_a_description_has_every_setting():
    described = yaml.safe_load(describe_run(load_yaml(LAYERS), "first"))
    run = resolve_run(load_yaml(LAYERS), "first").model_dump()
    assert {group: set(described[group]) for group in ("model", "train", "eval", "sample")} == {
        group: set(run[group]) for group in ("model", "train", "eval", "sample")
    }


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(1e-6, 1e300))
def test_a_description_is_yaml_that_gives_the_same_run(start, temperature):
    config = load(
        {
            "corpora": {"text": {"files": "f"}},
            "datasets": {"text": {}},
            "sample": {"start": start, "temperature": temperature},
        }
    )
    described = yaml.safe_load(describe_run(config, "text"))
    again = load(
        {**config.model_dump(include={"corpora", "datasets"}), "runs": {"again": described}}
    )
    assert resolve_run(again, "again").model_copy(update={"name": "text"}) == resolve_run(
        config, "text"
    )


def test_what_a_run_resolves_to_is_frozen():
    run = resolve_run(load_yaml(""), "first")
    with pytest.raises(ValidationError, match="frozen"):
        run.train.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        run.name = "another"


def test_min_lr_and_warm_up_do_not_matter_without_decay():
    config = load_yaml("train: {decay_lr: no, min_lr: 9, warmup_iters: 9999999}")
    assert resolve_run(config, "first").train.min_lr == 9


def test_a_decay_longer_than_the_training_leaves_room_for_the_warm_up():
    config = load_yaml("train: {warmup_iters: 50, max_iters: 50, lr_decay_iters: 51}")
    assert resolve_run(config, "first").train.lr_decay_iters == 51


@pytest.mark.parametrize("name", ["two words", "-n", "Käse", "红楼梦"])
def test_a_text_whose_name_can_name_no_run_is_told(name):
    with pytest.raises(UserError, match=f"{name}.txt: `{name}` is no name; .*; rename the text"):
        load({}, [name])


def test_the_file_of_a_download_has_the_name_in_its_url():
    plain, version = "https://example.org/a/b/book.txt", "https://example.org/book.txt?v=a/b#c/d"
    assert Corpus(url=plain).downloads == {"book.txt": plain}
    assert Corpus(url=version).downloads == {"book.txt": version}
    assert Corpus(builtin="playwright").downloads == {}


def test_a_numbered_range_of_urls_is_written_out_as_curl_does_it():
    corpus = Corpus(url=["https://example.org/[8-10]-part-[00-01].txt", "https://example.org/z"])
    parts = ["8-part-00", "8-part-01", "9-part-00", "9-part-01", "10-part-00", "10-part-01"]
    assert corpus.urls == [
        *(f"https://example.org/{part}.txt" for part in parts),
        "https://example.org/z",
    ]


# --- Generated pages, and the config that is shipped ----------------------------------------


def test_the_settings_page_has_every_setting_with_its_default():
    page = settings_page()
    for group in (ModelSettings, TrainSettings, EvalSettings, SampleSettings):
        for name, field in group.model_fields.items():
            assert f"| `{name}` |" in page
            assert field.description in page
    assert "| `learning_rate` | `0.001` |" in page
    assert "| `dropout` | `0.2` |" in page


def test_every_row_of_the_settings_page_has_three_cells():
    rows = [line for line in settings_page().splitlines() if line.startswith("| `")]
    assert rows
    assert all(row.count("|") == 4 for row in rows)


@pytest.fixture(scope="module")
def shipped():
    return load(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")))


def test_every_run_of_the_shipped_config_resolves(shipped):
    assert {"demo", "shakespeare_char", "shakespeare_char_quickstart"} <= set(run_names(shipped))
    for name in run_names(shipped):
        assert resolve_run(shipped, name).dataset in shipped.datasets


def test_the_shipped_report_is_of_runs_that_there_are(shipped):
    assert shipped.report.runs
    assert set(shipped.report.runs) <= set(run_names(shipped))


def test_the_examples_of_the_page_on_sweeps_work_with_the_shipped_config():
    page = (ROOT / "docs/SWEEPS.md").read_text(encoding="utf-8")
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(examples) == 2
    sizes, heads = (
        load({**shipped, **example, "runs": {**shipped["runs"], **example["runs"]}})
        for example in examples
    )
    assert len(expand(heads, ["heads"])) == 15
    names = expand(sizes, ["sizes"])
    assert sizes.report.runs == ["demo", *names]
    shown = re.findall(r"^    (sizes\..*)$", page, re.MULTILINE)
    assert shown == [*names[:3], names[-1]]


def test_the_shipped_demo_needs_no_download(shipped):
    dataset = resolve_run(shipped, "demo").dataset
    assert shipped.corpora[corpus_of(shipped, dataset)].builtin == "playwright"


def test_the_shipped_downloads_of_one_file_have_checksums(shipped):
    single = [corpus for corpus in shipped.corpora.values() if len(corpus.urls) == 1]
    assert single
    assert all(corpus.sha256 for corpus in single)


def test_the_shipped_quick_start_has_nanogpts_settings(shipped):
    # The command line of nanoGPT's README ("I only have a macbook"), and the values of its
    # config/train_shakespeare_char.py and train.py where that is silent.
    run = resolve_run(shipped, "shakespeare_char_quickstart").model_dump()
    wanted = {
        "model": {
            "n_layer": 4,
            "n_head": 4,
            "n_embd": 128,
            "block_size": 64,
            "dropout": 0,
            "bias": False,
            "activation": "gelu",
        },
        "train": {
            "max_iters": 2000,
            "batch_size": 12,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3,
            "decay_lr": True,
            "warmup_iters": 100,
            "min_lr": 1e-4,
            "weight_decay": 0.1,
            "beta1": 0.9,
            "beta2": 0.99,
            "grad_clip": 1.0,
            "eval_interval": 250,
            "eval_iters": 20,
            "keep": "best",
            "seed": 1337,
            "device": "cpu",
            "dtype": "float32",
            "compile": False,
        },
    }
    for group, values in wanted.items():
        assert {name: run[group][name] for name in values} == values
    assert run["train"]["lr_decay_iters"] in (None, 2000)
    assert run["dataset"] == "shakespeare_char"
