"""Arguments of other commands."""

from tests.mistakes.base import CONFIG, NOT_UTF8, code, command, workflow, write_files
from tests.mistakes.materials import make_dataset, make_model

COMMANDS = [
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
        "results/datasets/book: no such file; make the dataset or model again",
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
        "book.txt: no directory can be made there: File exists; name another",
        make_dataset,
    ),
    command(
        "an export to a path below a file",
        "export dataset results/datasets/book book.txt/data",
        "book.txt/data: no directory can be made there: Not a directory; name another",
        make_dataset,
    ),
    command(
        "an export of a missing dataset",
        "export dataset results/datasets/book data/book",
        "results/datasets/book: no dataset here; meta.json is missing: make the "
        "dataset, or name the directory of one",
    ),
]
