"""Arguments of other commands."""

from collections.abc import Callable

from tests.mistakes.base import CONFIG, NOT_UTF8, TEXT, code, command, workflow, write_files
from tests.mistakes.materials import make_dataset, make_model


def _write_project() -> None:
    write_files({"config.yaml": CONFIG, "text.txt": TEXT})


def _write_two_datasets() -> None:
    config = CONFIG.replace(
        "{letters: {corpus: text}}", "{letters: {corpus: text}, other: {corpus: text}}"
    )
    write_files({"config.yaml": config, "text.txt": TEXT})


def _write_config_and(**files: str) -> Callable[[], None]:
    """A function that writes a project, and files by their names without dots."""

    def write() -> None:
        _write_project()
        write_files({name.replace("_json", ".json"): text for name, text in files.items()})

    return write


COMMANDS = [
    command(
        "a training of nothing",
        "train",
        "name a run, or a dataset by --dataset; there is `first`, `letters`",
        _write_project,
    ),
    command(
        "a training of an unknown run",
        "train fist --max_iters=50",
        "runs: no run `fist`; did you mean `first`?",
        _write_project,
    ),
    command(
        "a training on an unknown dataset",
        "train --dataset=lettres",
        "--dataset: no dataset `lettres`; did you mean `letters`?",
        _write_project,
    ),
    command(
        "a training on a file",
        "train text.txt --max_iters=50",
        "text.txt: a file, and no run or dataset; make a dataset of it: `nanogpt prepare textfile "
        "text.txt --output=text`",
        _write_project,
    ),
    command(
        "a learning rate that nothing learns at",
        "train first --optimizer=muon --position=rotary --norm=rmsnorm --learning_rate=0.001",
        "--learning_rate: of no use with muon and this model; set `--matrix_lr`, `--embedding_lr` "
        "and `--unembedding_lr`, or `--optimizer=adamw`",
        _write_project,
    ),
    command(
        "a file instead of a dataset",
        "prepare text.txt",
        "text.txt: a file, and no run or dataset; make a dataset of it: `nanogpt prepare textfile "
        "text.txt --output=text`",
        _write_project,
    ),
    command(
        "tokens of an unknown dataset",
        "tokenize lettres aba",
        "lettres: no dataset or run of this name; did you mean `letters`?",
        _write_project,
    ),
    command(
        "tokens of a dataset that isn't made",
        "tokenize first aba",
        "results/datasets/letters/tokenizer.json: not made yet; make it: `nanogpt prepare letters`",
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
        "sample: --top_k: its value is missing: `--top_k=VALUE`; see `nanogpt sample --help`",
    ),
    command(
        "a word where a number is wanted",
        "watch --port=http",
        "watch: --port: should be a whole number (found `http`)",
    ),
    command(
        "a port that no machine has",
        "watch --port=99999999",
        "--port: should be 0 to 65535 (found 99999999)",
    ),
    command(
        "a word that is missing",
        "export",
        "export: MODEL is missing; see `nanogpt export --help`",
    ),
    command(
        "a dataset of a file that isn't there",
        "prepare absent.txt",
        "absent.txt: no such file; a dataset of a text is made by `nanogpt prepare textfile PATH "
        "--output=NAME`",
        _write_project,
    ),
    command(
        "a whole disk as a text",
        "prepare textfile / --output=x",
        "/: the whole disk; name a text, or a directory of texts",
        _write_project,
    ),
    command(
        "a prompt without its flag",
        "sample first ROMEO:",
        "sample: `ROMEO:` is one word too many; a prompt is `--start=ROMEO:`",
    ),
    command(
        "a flag with a wrong value",
        "train first --max_iters=many",
        "--max_iters: should be a number, such as 10000, 10_000 or 1e4 (found 'many')",
        _write_project,
    ),
    command(
        "a name that a run with other settings has",
        "train first --max_iters=50 --name=letters",
        "runs: `letters` exists with other settings (train.max_iters 5000 and 2 more); give the "
        "new one another name",
        _write_project,
    ),
    command(
        "a name that no file can have",
        "train first --max_iters=50 --name=my/run",
        "runs: `my/run` is no name; letters, digits, dot, dash and underscore make a name that "
        "begins with a letter or digit",
        _write_project,
    ),
    command(
        "a preset of nanoGPT's without its run",
        "train config/train_gpt2.py",
        "train_gpt2: the run `openwebtext_gpt2.model-gpt2` of the shipped config.yaml, which this "
        "one lacks; copy it from there",
        _write_project,
    ),
    command(
        "a Python file as settings",
        "train config/mine.py",
        "config/mine.py: Python isn't executed as a config file; write its settings as flags, or "
        "as JSON for --config",
        _write_project,
    ),
    command(
        "a file of settings that isn't there",
        "train first --config=small.json",
        "--config small.json: no such file; name a JSON file of settings",
        _write_project,
    ),
    command(
        "a file of settings with an unknown one",
        "train first --config=small.json",
        "small.json: `max_itres`: unknown setting; did you mean `max_iters`?",
        _write_config_and(small_json='{"max_itres": 50}'),
    ),
    command(
        "an evaluation of weights that are not here",
        "eval eval_gpt2",
        "eval_gpt2: get the weights first: `nanogpt import gpt2 models/gpt2 --from huggingface`; "
        "then `nanogpt eval models/gpt2 --dataset=openwebtext --batch_size=8 --eval_iters=500`",
        _write_project,
    ),
    command(
        "an evaluation of a model directory on nothing",
        "eval results/demo/model",
        "results/demo/model: name the dataset to evaluate it on by --dataset",
        make_model,
    ),
    command(
        "samples of a run that has no model",
        "sample first",
        "results/first/model: no model yet; train it: `nanogpt train first`",
        _write_project,
    ),
    command(
        "samples of a dataset that has no model",
        "sample --dataset=letters",
        "--dataset=letters: no model of it yet; train one: `nanogpt train --dataset=letters`",
        _write_project,
    ),
    command(
        "samples of a run and of another dataset",
        "sample first --dataset=other",
        "first: trained on `letters`, not on `other`; leave out the run, or --dataset",
        _write_two_datasets,
    ),
    command(
        "samples of a run and of an unknown dataset",
        "sample first --dataset=lettres",
        "--dataset: no dataset `lettres`; did you mean `letters`?",
        _write_two_datasets,
    ),
    command(
        "samples of a model directory and of a dataset",
        "sample results/demo/model --dataset=letters",
        "--dataset=letters: finds the model that was trained last on it; leave it out where a "
        "model directory is named",
        make_model,
    ),
    command(
        "a switch that is neither on nor off",
        "eval first --json=maybe",
        "--json: should be True or False (found `maybe`)",
        _write_project,
    ),
    command(
        "samples of an unknown run",
        "sample fist",
        "fist: no model here, and no run `fist`; did you mean `first`?",
        _write_project,
    ),
    command(
        "a text that isn't there",
        "prepare textfile novel.txt",
        "corpora.novel.files: novel.txt: no such file; put a text there or correct the path",
        _write_project,
    ),
    command(
        "a text without `textfile`",
        "prepare letters novel.txt",
        "novel.txt: for a text, say `nanogpt prepare textfile novel.txt`",
        _write_project,
    ),
    command(
        "a name that a dataset with other settings has",
        "prepare textfile text.txt --output=letters --val_ratio=0.5",
        "datasets: `letters` exists with other settings (dataset.val_ratio 0.1); give the new one "
        "another name",
        _write_project,
    ),
    command(
        "a name in two files",
        "config first",
        "resources/config/mine.yaml: runs: `first` is in config.yaml too; rename or remove one of "
        "them",
        lambda: write_files(
            {"config.yaml": CONFIG, "resources/config/mine.yaml": "runs: {first: {}}"}
        ),
    ),
    command(
        "defaults in resources/config/",
        "config first",
        "resources/config/mine.yaml: `defaults` can't be here, only corpora, datasets, models, "
        "runs; move it to config.yaml",
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
        "a target of an unknown run",
        code("snakemake results/bok/samples.txt"),
        "results/bok/samples.txt",
        "runs: no run `bok`; did you mean `book`?",
        "texts/a.txt",
    ),
    command(
        "tokens without a tokenizer",
        "tokenize results/datasets/book text",
        "results/datasets/book: no such file; recreate the dataset or model",
    ),
    command(
        "tokens of an unknown letter",
        "tokenize results/demo/model abx",
        "the tokenizer's vocabulary of 5 characters lacks 'x' (U+0078); leave it out",
        make_model,
    ),
    command(
        "tokens of a missing file",
        "tokenize results/demo/model FILE:a.txt",
        "a.txt: no such file; put a text there or correct the path",
        make_model,
    ),
    command(
        "tokens of text that isn't UTF-8",
        f"tokenize results/demo/model {NOT_UTF8}",
        "not UTF-8: 'utf-32-le' codec can't encode character '\\udce9' in position 3: "
        "surrogates not allowed",
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
