"""Arguments of commands."""

from collections.abc import Callable

from tests.mistakes.base import CONFIG, NOT_UTF8, TEXT, code, command, workflow, write_files
from tests.mistakes.materials import make_dataset, make_model


def _write_project() -> None:
    write_files({"config.yaml": CONFIG, "text.txt": TEXT})


def _write_project_with_book() -> None:
    book = "corpora: {book: {files: text.txt}}\ndatasets: {book: {val_ratio: 0.2}}\n"
    write_files({"config.yaml": CONFIG, "text.txt": TEXT, "resources/config/book.yaml": book})


def _write_two_datasets() -> None:
    config = CONFIG.replace(
        "{letters: {corpus: text}}", "{letters: {corpus: text}, other: {corpus: text}}"
    )
    write_files({"config.yaml": config, "text.txt": TEXT})


def _write_config_and(**files: str) -> Callable[[], None]:
    """Return a function that writes a project and files, given by names without dots."""

    def write() -> None:
        _write_project()
        write_files({name.replace("_json", ".json"): text for name, text in files.items()})

    return write


COMMANDS = [
    command(
        "`train` without a run",
        "train",
        "no run given; name one, or use --dataset=NAME; runs: `first`, `letters`",
        _write_project,
    ),
    command(
        "training an unknown run",
        "train fist --max_iters=50",
        "runs: no run `fist`; did you mean `first`?",
        _write_project,
    ),
    command(
        "training on an unknown dataset",
        "train --dataset=lettres",
        "--dataset: no dataset `lettres`; did you mean `letters`?",
        _write_project,
    ),
    command(
        "training on a file",
        "train text.txt --max_iters=50",
        "text.txt: a file, not a run or dataset; make a dataset from it with `nanogpt prepare "
        "textfile text.txt --output=text`",
        _write_project,
    ),
    command(
        "a learning rate that isn't used",
        "train first --optimizer=muon --position=rotary --norm=rmsnorm --learning_rate=0.001",
        "--learning_rate: has no effect with muon and this model; set `--matrix_lr`, "
        "`--embedding_lr` and `--unembedding_lr`, or `--optimizer=adamw`",
        _write_project,
    ),
    command(
        "preparing a file without `textfile`",
        "prepare text.txt",
        "text.txt: a file, not a run or dataset; make a dataset from it with `nanogpt prepare "
        "textfile text.txt --output=text`",
        _write_project,
    ),
    command(
        "the tokenizer of an unknown dataset",
        "tokenize lettres aba",
        "no dataset or run `lettres`; did you mean `letters`?",
        _write_project,
    ),
    command(
        "the tokenizer of a dataset that isn't prepared yet",
        "tokenize first aba",
        "results/datasets/letters/tokenizer.json: doesn't exist yet; make it with `nanogpt "
        "prepare letters`",
        _write_project,
    ),
    command(
        "an unknown command",
        "trian first",
        "no command `trian`; did you mean `train`?",
    ),
    command(
        "an unknown flag",
        "train first --max_itres=50",
        "train: no flag `--max_itres`; did you mean `--max_iters`?",
    ),
    command(
        "a flag without its value",
        "sample first --top_k",
        "sample: --top_k: the value is missing; write `--top_k=VALUE`, and see `nanogpt sample "
        "--help`",
    ),
    command(
        "a word instead of a number",
        "watch --port=http",
        "watch: --port: should be a whole number (found `http`)",
    ),
    command(
        "an invalid port",
        "watch --port=99999999",
        "--port: should be from 0 to 65535 (found `99999999`)",
    ),
    command(
        "a missing argument",
        "export",
        "export: MODEL is missing; see `nanogpt export --help`",
    ),
    command(
        "preparing a missing file",
        "prepare absent.txt",
        "absent.txt: no such file; to make a dataset from a text, run `nanogpt prepare textfile "
        "PATH --output=NAME`",
        _write_project,
    ),
    command(
        "preparing a whole disk",
        "prepare textfile / --output=x",
        "/: this is the whole disk; name a text or a directory of texts",
        _write_project,
    ),
    command(
        "a prompt without its flag",
        "sample first ROMEO:",
        "sample: unexpected argument `ROMEO:`; for a prompt, use `--start=ROMEO:`",
    ),
    command(
        "a flag with a wrong value",
        "train first --max_iters=many",
        "--max_iters: should be a number, such as 10000, 10_000 or 1e4 (found `many`)",
        _write_project,
    ),
    command(
        "a run name that's taken",
        "train first --max_iters=50 --name=letters",
        "runs: `letters` already exists with other settings (train.max_iters is `5000` and 2 "
        "more); give the new one another name",
        _write_project,
    ),
    command(
        "an invalid run name",
        "train first --max_iters=50 --name=my/run",
        "runs: invalid name `my/run`; use letters, digits, `.`, `-` and `_`, starting with a "
        "letter or digit",
        _write_project,
    ),
    command(
        "a nanoGPT preset without its run",
        "train config/train_gpt2.py",
        "train_gpt2: this preset is the run `openwebtext_gpt2.model-gpt2` of the shipped "
        "config.yaml, which your config.yaml doesn't have; copy it from there",
        _write_project,
    ),
    command(
        "a Python config file",
        "train config/mine.py",
        "config/mine.py: Python config files aren't executed; give the settings as flags, or as a "
        "JSON file with --config",
        _write_project,
    ),
    command(
        "a missing file of settings",
        "train first --config=small.json",
        "--config small.json: no such file; name a JSON file with settings",
        _write_project,
    ),
    command(
        "an unknown setting in a file of settings",
        "train first --config=small.json",
        "small.json: unknown setting `max_itres`; did you mean `max_iters`?",
        _write_config_and(small_json='{"max_itres": 50}'),
    ),
    command(
        "evaluating published weights before importing them",
        "eval eval_gpt2",
        "eval_gpt2: needs the published weights; run `nanogpt import gpt2 models/gpt2 --from "
        "huggingface`, then run `nanogpt eval models/gpt2 --dataset=openwebtext --batch_size=8 "
        "--eval_iters=500`",
        _write_project,
    ),
    command(
        "evaluating a model directory without a dataset",
        "eval results/demo/model",
        "results/demo/model: the dataset is missing; give the one to evaluate on with "
        "--dataset=NAME",
        make_model,
    ),
    command(
        "sampling from a run that isn't trained yet",
        "sample first",
        "results/first/model: no model yet; train it with `nanogpt train first`",
        _write_project,
    ),
    command(
        "sampling for a dataset without a trained model",
        "sample --dataset=letters",
        "--dataset=letters: no model is trained on it yet; train one with `nanogpt train "
        "--dataset=letters`",
        _write_project,
    ),
    command(
        "sampling from a run with another dataset",
        "sample first --dataset=other",
        "first: trained on `letters`, not on `other`; leave out `first` or --dataset",
        _write_two_datasets,
    ),
    command(
        "sampling from a run with an unknown dataset",
        "sample first --dataset=lettres",
        "--dataset: no dataset `lettres`; did you mean `letters`?",
        _write_two_datasets,
    ),
    command(
        "sampling from a model directory with a dataset",
        "sample results/demo/model --dataset=letters",
        "--dataset=letters: can't be used with a model directory, since it selects a model; "
        "remove it",
        make_model,
    ),
    command(
        "a boolean flag with another value",
        "eval first --json=maybe",
        "--json: should be true or false (found `maybe`)",
        _write_project,
    ),
    command(
        "sampling from an unknown run",
        "sample fist",
        "no run or model directory `fist`; did you mean `first`?",
        _write_project,
    ),
    command(
        "preparing a missing text with `textfile`",
        "prepare textfile novel.txt",
        "corpora.novel.files: novel.txt: no such file; put a text there or correct the path",
        _write_project,
    ),
    command(
        "a text without `textfile`",
        "prepare letters novel.txt",
        "novel.txt: unexpected argument; for a text, run `nanogpt prepare textfile novel.txt`",
        _write_project,
    ),
    command(
        "a dataset name that's taken",
        "prepare textfile text.txt --output=letters --val_ratio=0.5",
        "datasets: `letters` already exists with other settings (dataset.val_ratio is `0.1`); "
        "give the new one another name",
        _write_project,
    ),
    command(
        "a number of cores that isn't one",
        "train first --max_iters=50 --cores=two",
        "train: --cores: should be a whole number of at least 1, or all (found `two`)",
        _write_project,
    ),
    command(
        "other settings for a dataset that a command made",
        "prepare textfile text.txt --output=book --val_ratio=0.5",
        "datasets: `book` already exists with other settings (dataset.val_ratio is `0.2`); "
        "give the new one another name, or change it in resources/config/book.yaml",
        _write_project_with_book,
    ),
    command(
        "a run in two files",
        "config first",
        "resources/config/mine.yaml: runs: `first` is also in config.yaml; rename or remove one "
        "of them",
        lambda: write_files(
            {"config.yaml": CONFIG, "resources/config/mine.yaml": "runs: {first: {}}"}
        ),
    ),
    command(
        "defaults in resources/config/",
        "config first",
        "resources/config/mine.yaml: `defaults` isn't allowed here, only `corpora`, `datasets`, "
        "`models`, `runs`; move it to config.yaml",
        lambda: write_files(
            {"config.yaml": CONFIG, "resources/config/mine.yaml": "defaults: {model: tiny}"}
        ),
    ),
    command(
        "an unknown run",
        "config fist",
        "runs: no run `fist`; did you mean `first`?",
        lambda: write_files({"config.yaml": CONFIG}),
    ),
    command(
        "another config file that doesn't exist",
        "config first --config-file mine.yaml",
        "mine.yaml: no such file; run this in the project's directory",
    ),
    workflow(
        "a Snakemake target of an unknown run",
        code("snakemake results/bok/samples.txt"),
        "results/bok/samples.txt",
        "runs: no run `bok`; did you mean `book`?",
        "texts/a.txt",
    ),
    command(
        "tokenizing without a tokenizer",
        "tokenize results/datasets/book text",
        "results/datasets/book: no such file; name a prepared dataset, a run, or a tokenizer.json",
    ),
    command(
        "tokenizing an unknown letter",
        "tokenize results/demo/model abx",
        "the tokenizer's vocabulary of 5 characters lacks 'x' (U+0078); leave it out",
        make_model,
    ),
    command(
        "tokenizing a missing file",
        "tokenize results/demo/model FILE:a.txt",
        "a.txt: no such file; put a text there or correct the path",
        make_model,
    ),
    command(
        "tokenizing text that isn't UTF-8",
        f"tokenize results/demo/model {NOT_UTF8}",
        "the text isn't valid UTF-8; convert it to UTF-8",
        make_model,
    ),
    command(
        "an export to a file",
        "export dataset results/datasets/book book.txt",
        "book.txt: can't be created: File exists; name another destination",
        make_dataset,
    ),
    command(
        "an export to a path below a file",
        "export dataset results/datasets/book book.txt/data",
        "book.txt/data: can't be created: Not a directory; name another destination",
        make_dataset,
    ),
    command(
        "an export of a missing dataset",
        "export dataset results/datasets/book data/book",
        "results/datasets/book: no dataset here (meta.json is missing); prepare the dataset, or "
        "give another directory",
    ),
]
