"""What settings accept, and the one line for each that is wrong."""

import pytest
from pydantic import ValidationError

from nanogpt.config.corpora import Corpus
from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import SampleSettings, TrainSettings
from tests.config.examples import (
    assert_one_line,
    load_yaml,
)

WRONG = {
    # Types.
    "word for number": ("models: {m: {n_layer: four}}", ["m.n_layer", "a number", "`four`"]),
    "fraction for count": ("models: {m: {n_layer: 2.5}}", ["m.n_layer", "whole number", "2.5"]),
    "yes for a count": ("models: {m: {n_layer: yes}}", ["m.n_layer", "number", "yes or no"]),
    "no for a count": ("train: {seed: no}", ["train.seed", "number", "yes or no"]),
    "yes for a number": ("train: {learning_rate: yes}", ["learning_rate", "yes or no"]),
    "yes where none is allowed": ("train: {lr_decay_iters: yes}", ["lr_decay_iters", "yes or no"]),
    "yes for a run's number": ("runs: {r: {eval: {batch_size: on}}}", ["r.eval.batch_size"]),
    "number for yes or no": ("models: {m: {bias: 2}}", ["models.m.bias", "true or false", "2"]),
    "none for a number": ("train: {max_iters: null}", ["train.max_iters", "whole number"]),
    "list for a number": ("train: {max_iters: [1]}", ["train.max_iters", "whole number"]),
    "number for a prompt": ("sample: {start: 5}", ["sample.start", "text", "quotes", "5"]),
    "word for a list": ("report: {runs: first}", ["report.runs", "list", "`first`"]),
    "list for runs": ("runs: [first]", ["runs", "mapping", "[first]"]),
    "word for a run": ("runs: {r: letters}", ["runs.r", "`letters`"]),
    "number for a model": ("defaults: {model: 3}", ["defaults.model", "3"]),
    "nothing for a corpus": ("corpora: {c: }", ["corpora.c"]),
    "number for a name": ("runs: {2024: {dataset: letters}}", ["runs.2024", "text", "quotes"]),
    "number for a top-level name": ("2024: {}", ["2024"]),
    # Ranges.
    "no layers": ("models: {m: {n_layer: 0}}", ["m.n_layer", "1", "found `0`"]),
    "all dropped": ("models: {m: {dropout: 1}}", ["m.dropout", "less than 1", "found `1`"]),
    "negative dropout": ("models: {m: {dropout: -0.1}}", ["m.dropout", "-0.1"]),
    "no steps": ("train: {max_iters: 0}", ["train.max_iters", "found `0`"]),
    "no learning": ("train: {learning_rate: 0}", ["train.learning_rate", "greater than 0"]),
    "negative in a string": ("train: {learning_rate: '-1e-3'}", ["learning_rate", "`-1e-3`"]),
    "beta of one": ("train: {beta2: 1}", ["train.beta2", "less than 1"]),
    "negative seed": ("train: {seed: -1}", ["train.seed", "-1"]),
    "seed of more than 64 bits": ("train: {seed: 18446744073709551616}", ["train.seed"]),
    "everything held out": ("datasets: {d: {corpus: text, val_ratio: 1}}", ["d.val_ratio"]),
    "nothing held out": ("datasets: {d: {corpus: text, val_ratio: 0}}", ["d.val_ratio"]),
    "milestone before the first step": (
        "train: {milestones: [0]}",
        ["milestones: ", "found `0`"],
    ),
    "milestone that is no step": ("train: {milestones: [5, 2.5]}", ["train.milestones: ", "2.5"]),
    "word for a milestone": (
        "train: {milestones: [all]}",
        ["milestones: ", "a number", "`all`"],
    ),
    "yes for a milestone": ("train: {milestones: [yes]}", ["train.milestones: ", "yes or no"]),
    "number for milestones": ("train: {milestones: 500}", ["train.milestones", "list", "500"]),
    "negative temperature": ("sample: {temperature: -1}", ["sample.temperature", "equal to 0"]),
    "negative top_k": ("sample: {top_k: -1}", ["sample.top_k", "-1"]),
    "NaN": ("train: {learning_rate: .nan}", ["train.learning_rate", "finite", "nan"]),
    "NaN in a string": ("train: {weight_decay: nan}", ["train.weight_decay", "`nan`"]),
    "infinity": ("train: {grad_clip: .inf}", ["train.grad_clip", "finite", "inf"]),
    # Choices.
    "dtype": ("train: {dtype: float64}", ["train.dtype", "`bfloat16`", "`float64`"]),
    "device": ("train: {device: gpu}", ["train.device", "cuda", "`gpu`"]),
    "activation": ("models: {m: {activation: relu}}", ["m.activation", "`gelu`", "`relu`"]),
    "a vocabulary of bytes alone": ("datasets: {d: {vocab_size: 256}}", ["vocab_size", "257"]),
    "a digest of several local files": (
        f"corpora: {{c: {{files: [a, b], sha256: {'a' * 64}}}}}",
        ["corpora.c", "1 sha256 for 2 files"],
    ),
    "split": ("datasets: {d: {split: random}}", ["d.split", "`document`", "`random`"]),
    "keep": ("train: {keep: all}", ["train.keep", "`best`", "`last`", "`all`"]),
    "built-in corpus": ("corpora: {c: {builtin: plai}}", ["c.builtin", "`play`", "`plai`"]),
    # Corpora.
    "no source": ("corpora: {c: {}}", ["corpora.c", "exactly one of `url`, `files` or `builtin`"]),
    "two sources": (
        "corpora: {c: {url: 'http://a/b', files: f}}",
        ["corpora.c", "exactly one of `url`, `files` or `builtin`"],
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
        ["corpora.c", "same file name"],
    ),
    "a digest of several files": (
        f"corpora: {{c: {{url: ['http://a/x', 'http://a/y'], sha256: {'a' * 64}}}}}",
        ["corpora.c", "1 sha256 for 2 files"],
    ),
    "number for files": ("corpora: {c: {files: 3}}", ["corpora.c.files", "should be text"]),
    "empty path": ("corpora: {c: {files: ['']}}", ["corpora.c.files: ", "not be empty"]),
    "no files": ("corpora: {c: {files: []}}", ["corpora.c", "exactly one"]),
    "errors": ("corpora: {c: {files: f, errors: ignore}}", ["c.errors", "`replace`", "`ignore`"]),
    "newlines": ("corpora: {c: {files: f, newlines: crlf}}", ["c.newlines", "`lf`", "`crlf`"]),
    "short sha256": ("corpora: {c: {files: f, sha256: abc}}", ["corpora.c.sha256", "`abc`"]),
    "unknown encoding": ("corpora: {c: {files: f, encoding: utf-9}}", ["encoding", "utf-9"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_mistake_gets_one_line(text, words):
    assert_one_line(text, words)


@pytest.mark.parametrize("written", ["1e-3", "'1e-3'", "'0.001'", "0.001", "1.0e-3"])
def test_numbers_in_strings_are_numbers(written):
    run = resolve_run(load_yaml(f"train: {{learning_rate: {written}}}"), "first")
    assert run.train.learning_rate == 1e-3


@pytest.mark.parametrize("written", ["2000", "'2000'", "2e3", "'2e3'", "2000.0", "'2000.0'"])
def test_whole_numbers_can_be_written_in_any_form(written):
    assert resolve_run(load_yaml(f"train: {{max_iters: {written}}}"), "first").train.max_iters == (
        2000
    )


@pytest.mark.parametrize("written", ["[5, 10]", "['5', '10']", "['5', '1e1']", "[5.0, 1e1]"])
def test_milestones_can_be_written_in_any_form(written):
    config = load_yaml(f"train: {{max_iters: 10, warmup_iters: 0, milestones: {written}}}")
    assert resolve_run(config, "first").train.milestones == [5, 10]


@pytest.mark.parametrize(
    ("written", "value"), [("yes", True), ("'true'", True), ("no", False), ("'False'", False)]
)
def test_yes_and_no_can_be_strings(written, value):
    assert resolve_run(load_yaml(f"model: {{bias: {written}}}"), "first").model.bias is value


def test_download_gets_the_file_name_of_its_url():
    plain, version = "https://example.org/a/b/book.txt", "https://example.org/book.txt?v=a/b#c/d"
    assert Corpus(url=plain).downloads == {"book.txt": plain}
    assert Corpus(url=version).downloads == {"book.txt": version}
    assert Corpus(builtin="play").downloads == {}


def test_the_file_names_of_urls_are_found_once():
    """Each job of thousands of downloads asks for them."""
    url = "https://host.example/part-[000-999].txt"
    assert Corpus(url=url).downloads is Corpus(url=url).downloads
    assert len(Corpus(url=url).downloads) == 1000


def test_old_name_of_the_built_in_corpus_still_works():
    assert Corpus(builtin="playwright") == Corpus(builtin="play")
    assert load_yaml("corpora: {text: {builtin: playwright}}").corpora["text"].builtin == "play"


def test_download_from_s3_gets_the_file_name_of_its_key():
    """Keys can have any characters, and `%20` means just that."""
    names = {"a b.txt": "a_b.txt", "a#1?.txt": "a_1_.txt", "a%20b.txt": "a_20b.txt"}
    for key, name in {**names, "日本.parquet": "text.parquet"}.items():
        url = f"s3://bucket/texts/{key}"
        assert Corpus(url=url).downloads == {name: url}
    for place in ("bucket/../up.txt", "bucket/texts/./a.txt", "bucket/", "my:bucket/a.txt"):
        with pytest.raises(ValueError, match="isn't the URL of a file"):
            Corpus(url=f"s3://{place}")


def test_name_of_a_download_with_only_a_suffix_has_a_stem():
    for name, local in {"%E6%97%A5%E6%9C%AC.txt": "text.txt", ".notes": "notes"}.items():
        url = f"https://example.org/{name}"
        assert Corpus(url=url).downloads == {local: url}


def test_tilde_in_a_path_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert Corpus(files=["~/texts", "~x", "a~/b"]).files == ["/home/me/texts", "~x", "a~/b"]
    assert Corpus(files="~/one.txt").files == ["/home/me/one.txt"]
    assert load_yaml("mirrors: [~/mirror]").mirrors == ["/home/me/mirror"]
    assert SampleSettings(start="FILE:~/prompt.txt").prompt_file == "/home/me/prompt.txt"


def test_numbered_range_of_urls_is_expanded_as_in_curl():
    corpus = Corpus(url=["https://example.org/[8-10]-part-[00-01].txt", "https://example.org/z"])
    parts = ["8-part-00", "8-part-01", "9-part-00", "9-part-01", "10-part-00", "10-part-01"]
    assert corpus.urls == [
        *(f"https://example.org/{part}.txt" for part in parts),
        "https://example.org/z",
    ]


def test_resolved_run_is_frozen():
    run = resolve_run(load_yaml(""), "first")
    with pytest.raises(ValidationError, match="frozen"):
        run.train.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        run.name = "another"


COUNTS = ("max_iters", "batch_size", "gradient_accumulation_steps", "warmup_iters")
STEPS = ("lr_decay_iters", "eval_interval", "eval_iters", "log_interval")


@pytest.mark.parametrize("name", [*COUNTS, *STEPS])
def test_whole_numbers_of_a_training_fit_into_64_bits(name):
    assert getattr(TrainSettings(**{name: 2**63 - 1}), name) == 2**63 - 1
    with pytest.raises(ValidationError, match="less than"):
        TrainSettings(**{name: 2**63})
