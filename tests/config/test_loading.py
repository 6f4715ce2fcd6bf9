"""From a config file and the user's own texts to a checked config, the shipped one included."""

from pathlib import Path

import pytest
import yaml

from nanogpt.config.corpora import Corpus
from nanogpt.config.loading import find_texts, load, read, read_mapping
from nanogpt.config.resolving import corpus_of, resolve_run, run_names
from nanogpt.config.schema import Config
from nanogpt.errors import UserError
from nanogpt.interchange.architectures import FITTING_RUN, check_format
from nanogpt.project import Project
from tests.config.examples import (
    assert_one_line,
    load_yaml,
    message_of,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty directory in which config.yaml and resources/texts/ can be put."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources" / "texts").mkdir(parents=True)
    return tmp_path


WRONG = {
    # Unknown names.
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
        ["defaults.model", "`x`", "none is defined"],
    ),
    # Invalid names.
    "parent directory": ("corpora: {'../x': {files: f}}", ["corpora: invalid name `../x`"]),
    "slash": ("runs: {'a/b': {dataset: letters}}", ["runs: invalid name `a/b`"]),
    "space": ("datasets: {'my book': {corpus: text}}", ["datasets: invalid name `my book`"]),
    "dot in front": ("models: {'.m': {}}", ["models: invalid name `.m`"]),
    "two dots": ("runs: {'..': {dataset: letters}}", ["runs: invalid name `..`"]),
    "dash in front": ("runs: {'-n': {dataset: letters}}", ["runs: invalid name `-n`"]),
    "empty name": ("runs: {'': {dataset: letters}}", ["runs: invalid name ``"]),
    "letter with an accent": ("models: {é: {}}", ["models: invalid name `é`"]),
    "line break": ('runs: {"a\\nb": {dataset: letters}}', ["runs: invalid name"]),
    "line break at the end": ('runs: {"a\\n": {dataset: letters}}', ["runs: invalid name"]),
    "run datasets": ("runs: {datasets: {dataset: letters}}", ["`datasets`", "reserved"]),
    "run report": ("runs: {report: {dataset: letters}}", ["`report`", "reserved"]),
    "run gpt2": ("runs: {gpt2: {dataset: letters}}", ["`gpt2`", "reserved"]),
    "dataset gpt2-xl": ("datasets: {gpt2-xl: {corpus: text}}", ["`gpt2-xl`", "reserved"]),
    "dataset report": ("datasets: {report: {corpus: text}}", ["`report`", "reserved"]),
    # Tokenizers.
    "tokenizer": (
        "datasets: {d: {corpus: text, tokenizer: word}}",
        ["d.tokenizer: no tokenizer or dataset `word`", "`char`", "`gpt2`", "`d`"],
    ),
    "tokenizer of itself": (
        "datasets: {d: {corpus: text, tokenizer: d}}",
        ["d.tokenizer: circular reference: d -> d", "char, bpe, gpt2 or byte"],
    ),
    "tokenizers in a circle": (
        "datasets: {d: {corpus: text, tokenizer: e}, e: {corpus: text, tokenizer: d}}",
        ["d.tokenizer: circular reference: d -> e -> d"],
    ),
    "a dataset called as a tokenizer": (
        "datasets: {byte: {corpus: text}}",
        ["datasets: `byte` is the name of a tokenizer"],
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_mistake_gets_one_line(text, words):
    assert_one_line(text, words)


FILES = {
    "a list": (b"- runs", ["mapping"]),
    "a word": (b"runs", ["mapping"]),
    "an open bracket": (b"runs: {", ["invalid YAML", "line 1"]),
    "two colons": (b"runs:\n  a: b: c\n", ["invalid YAML", "line 2"]),
    "a tab": (b"runs:\n\ta: {}\n", ["invalid YAML", "line 2"]),
    "no UTF-8": (b"# \xff\nruns: {}\n", ["not UTF-8", "0xff at offset 2"]),
    "a zero byte": (b"runs:\0", ["invalid YAML", "#x0000"]),
    "a date that there is not": (b"runs: {2024-13-45: {}}", ["date", "month", "quotes"]),
    "too many brackets": (b"[" * 5000, ["nested too deeply"]),
    "a key twice": (b"runs: {}\ntrain: {}\nruns: {}\n", ["line 3: `runs`", "in line 1"]),
    "a key twice in a line": (b"train: {seed: 1, seed: 2}\n", ["line 1: `seed`", "in line 1"]),
    "a key twice in a list": (b"runs:\n- a: 1\n  a: 2\n", ["line 3: `a`", "in line 2"]),
    "an unknown alias": (b"runs: *base", ["invalid YAML", "base"]),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES.keys())
def test_invalid_config_file_gets_one_line(project, content, words):
    (project / "config.yaml").write_bytes(content)
    with pytest.raises(UserError) as error:
        read()
    for word in ["config.yaml: ", *words]:
        assert word in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_missing_config_file_is_reported(project):
    with pytest.raises(UserError, match=r"^mine\.yaml: no such file; run this in .* directory$"):
        read("mine.yaml")
    assert not list(project.glob("*.yaml"))


def test_directory_instead_of_config_file_is_reported(project):
    with pytest.raises(UserError, match="resources: "):
        read(project / "resources")


def test_nothing_in_a_config_file_is_executed(project):
    (project / "config.yaml").write_text("runs: !!python/object/apply:os.mkdir [executed]\n")
    with pytest.raises(UserError, match="invalid YAML"):
        read()
    assert not (project / "executed").exists()


def test_merged_anchors_can_be_overridden(project):
    (project / "config.yaml").write_text(
        "models:\n"
        "  small: &small {n_layer: 1, n_head: 1}\n"
        "  wide: &wide {n_embd: 8}\n"
        "  large: {<<: *small, <<: *wide, n_layer: 2}\n"
    )
    assert read_mapping()["models"]["large"] == {"n_layer": 2, "n_head": 1, "n_embd": 8}


def test_empty_config_file_is_an_empty_config(project):
    (project / "config.yaml").write_text("# nothing yet\n")
    assert read() == Config()


def test_text_becomes_a_corpus_a_char_dataset_and_a_run():
    config = load_yaml("defaults: {train: {max_iters: 300}}", texts=["mybook.txt"])
    assert config.corpora["mybook"] == Corpus(files="resources/texts/mybook.txt")
    assert config.datasets["mybook"].tokenizer == "char"
    run = resolve_run(config, "mybook")
    assert (run.dataset, run.train.max_iters) == ("mybook", 300)


def test_text_can_be_in_the_report_and_be_a_runs_dataset():
    config = load_yaml(
        "{runs: {long: {dataset: mybook}}, report: {runs: [mybook]}}", ["mybook.txt"]
    )
    assert resolve_run(config, "long").dataset == "mybook"
    assert config.report.runs == ["mybook"]


@pytest.mark.parametrize("name", ["text", "letters", "first"])
def test_text_with_a_taken_name_is_an_error(name):
    message = message_of("", texts=["other.txt", f"{name}.txt"])
    assert message.startswith(f"resources/texts/{name}.txt: ")
    assert f"another corpus or dataset `{name}`" in message or f"has a run `{name}` on" in message
    assert "rename the text" in message
    assert len(message.splitlines()) == 1


def test_config_can_change_the_dataset_and_run_of_a_text():
    config = load_yaml(
        "{datasets: {mybook: {tokenizer: bpe}}, runs: {mybook: {train: {max_iters: 9}}}}",
        ["mybook.txt"],
    )
    assert config.corpora["mybook"].files == ["resources/texts/mybook.txt"]
    assert config.datasets["mybook"].tokenizer == "bpe"
    run = resolve_run(config, "mybook")
    assert (run.dataset, run.train.max_iters) == ("mybook", 9)


@pytest.mark.parametrize("source", [{}, {"files": "resources/texts/mybook.txt"}])
def test_config_can_change_the_corpus_of_a_text(source):
    config = load({"corpora": {"mybook": {"encoding": "cp1252", **source}}}, ["mybook.txt"])
    assert config.corpora["mybook"].files == ["resources/texts/mybook.txt"]
    assert config.corpora["mybook"].encoding == "cp1252"
    assert "mybook" in config.datasets


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("gpt2", "a reserved name"),
        ("char", "the name of a tokenizer"),
        ("bpe", "the name of a tokenizer"),
    ],
)
def test_text_with_a_reserved_name_is_an_error(name, flaw):
    assert message_of("", texts=[f"{name}.txt"]) == (
        f"resources/texts/{name}.txt: `{name}` is {flaw}; rename the text"
    )


@pytest.mark.parametrize("name", ["two words", "-n", "Käse", "红楼梦"])
def test_text_with_an_invalid_name_is_an_error(name):
    with pytest.raises(
        UserError, match=f"{name}.txt: invalid name `{name}`; rename the text: use "
    ):
        load({}, [f"{name}.txt"])


def test_texts_are_found_by_name(project):
    texts = project / "resources" / "texts"
    for name in ["b.txt", "a.1.txt", "README.md", "two words.txt", ".hidden.txt", "-n.txt"]:
        (texts / name).write_text("text")
    (texts / "Book.TXT").write_text("text")
    (texts / "folder.txt").mkdir()
    found = ["-n.txt", "Book.TXT", "a.1.txt", "b.txt", "two words.txt"]
    assert find_texts() == found
    assert find_texts(Project(project / "nowhere")) == []
    assert load({}, ["Book.TXT"]).corpora["Book"].files == ["resources/texts/Book.TXT"]


def test_two_texts_with_the_same_name_are_an_error():
    message = message_of("", texts=["book.TXT", "book.txt"])
    assert message == (
        "resources/texts/book.txt: same name as resources/texts/book.TXT; rename one of them"
    )


@pytest.mark.parametrize(
    "name", ["corpora", "datasets", "models", "runs", "defaults", "report", "mirrors"]
)
def test_empty_mapping_is_allowed_everywhere(name):
    assert load({name: None}) == load({})
    load({"report": {"runs": None}})


def test_x_keys_are_ignored():
    config = load_yaml("{x-note: [1, 2], x-common: &c {max_iters: 7}, train: *c}")
    assert config.train.max_iters == 7
    assert "x_note: unknown setting" in message_of("x_note: 1")


@pytest.mark.parametrize(
    ("text", "value"), [("010", 8), ("0100", 64), ("1:30", 90), ("-017", -15), ("1:00:00", 3600)]
)
def test_number_that_yaml_misreads_is_an_error(project, text, value):
    (project / "config.yaml").write_text(f"train:\n  seed: {text}\n")
    with pytest.raises(UserError, match=rf"line 2: YAML reads `{text}` as {value}; write {value}"):
        read_mapping()


@pytest.mark.parametrize("text", ["0", "00", "10", "1_000", "0x1F", "'010'", "08", "1e3", "0.10"])
def test_other_numbers_are_read(project, text):
    (project / "config.yaml").write_text(f"train:\n  seed: {text}\n")
    read_mapping()


def test_read_finds_texts_relative_to_the_config_file(project, tmp_path_factory, monkeypatch):
    (project / "config.yaml").write_text("defaults: {train: {max_iters: 300}}")
    (project / "resources" / "texts" / "mybook.txt").write_text("text")
    assert run_names(read()) == ["mybook"]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert run_names(read(project / "config.yaml")) == ["mybook"]


@pytest.fixture(scope="module")
def shipped():
    return load(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")))


def test_every_run_of_the_shipped_config_resolves(shipped):
    assert {"demo", "shakespeare_char", "shakespeare_char_quickstart"} <= set(run_names(shipped))
    for name in run_names(shipped):
        assert resolve_run(shipped, name).dataset in shipped.datasets


def test_the_runs_of_the_shipped_report_exist(shipped):
    assert shipped.report.runs
    assert set(shipped.report.runs) <= set(run_names(shipped))


def test_the_shipped_demo_needs_no_download(shipped):
    dataset = resolve_run(shipped, "demo").dataset
    assert shipped.corpora[corpus_of(shipped, dataset)].builtin == "play"


def test_shipped_downloads_have_published_checksums(shipped):
    downloads = {name for name, corpus in shipped.corpora.items() if corpus.url}
    without = {name for name in downloads if not shipped.corpora[name].sha256}
    assert without == {"openwebtext", "fineweb_edu", "quijote"}
    assert len(downloads) > 6


@pytest.mark.parametrize("form", ["huggingface", "gguf", "nanogpt"])
def test_run_suggested_by_messages_can_be_exported(shipped, form):
    run = resolve_run(shipped, FITTING_RUN)
    check_format(run.model, shipped.datasets[run.dataset].tokenizer, form, "")


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
    assert run["train"]["lr_decay_iters"] == 2000
    assert run["dataset"] == "shakespeare_char"
