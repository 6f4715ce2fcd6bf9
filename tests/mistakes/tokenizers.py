"""Tokenizers that are damaged or don't match a text."""

import json
from pathlib import Path

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.preparing import prepare
from nanogpt.data.tokenizers import CharTokenizer
from tests.mistakes.base import TEXT, Mistake, write_files
from tests.mistakes.materials import BOOK


def given_tokenizer(
    title: str,
    shown: str,
    tokenizer: bytes | str | None,
    message: str,
    *,
    name: str = "tokenizer.json",
) -> Mistake:
    """A dataset with another dataset's tokenizer or GPT-2's."""

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
        "a missing tokenizer",
        "a dataset without `tokenizer.json`",
        None,
        "results/datasets/other/tokenizer.json: no such file; run the workflow again",
    ),
    given_tokenizer(
        "a truncated tokenizer",
        "`tokenizer.json` cut in half",
        '{"type": "ch',
        "results/datasets/other/tokenizer.json: not a nanogpt tokenizer; delete the file and run "
        "the workflow again",
    ),
    given_tokenizer(
        "the same character twice",
        "a vocabulary `aab`",
        characters("aab"),
        "results/datasets/other/tokenizer.json: not a nanogpt tokenizer; delete the file and run "
        "the workflow again",
    ),
    given_tokenizer(
        "a lone surrogate in a vocabulary",
        "a vocabulary with U+D800",
        characters("a\ud800"),
        "results/datasets/other/tokenizer.json: not a nanogpt tokenizer; delete the file and run "
        "the workflow again",
    ),
    given_tokenizer(
        "a tokenizer with brackets nested too deeply",
        "100,000 `[`",
        100_000 * "[",
        "results/datasets/other/tokenizer.json: not a nanogpt tokenizer; delete the file and run "
        "the workflow again",
    ),
    given_tokenizer(
        "byte pairs without the single bytes",
        "`tokens` with two entries",
        '{"type": "bpe", "tokens": ["a", "b"]}',
        "results/datasets/other/tokenizer.json: not a nanogpt tokenizer; delete the file and run "
        "the workflow again",
    ),
    given_tokenizer(
        "another program's tokenizer.json",
        "a file from Hugging Face",
        '{"version": "1.0", "model": {"type": "BPE"}}',
        "results/datasets/other/tokenizer.json: not a nanogpt tokenizer; delete the file and run "
        "the workflow again",
    ),
    given_tokenizer(
        "merges that are not GPT-2's",
        "another `vocab.bpe`",
        "#version: 0.2\na b\n",
        "results/datasets/other/vocab.bpe: not GPT-2's merges (its sha256 differs); delete it "
        "and try again",
        name="vocab.bpe",
    ),
    given_tokenizer(
        "a tokenizer without some letters of the text",
        "`tokenizer: other`, made from a text without some letters",
        characters("".join(sorted(set(TEXT) - set("IA")))),
        "book.txt: can't be encoded with tokenizer `other` and separator '\\n': the "
        "tokenizer's vocabulary of 22 characters lacks 'I' (U+0049), 'A' (U+0041); leave them "
        "out, or choose another tokenizer or separator",
    ),
    Mistake(
        "a tokenizer without the separator",
        "`tokenizer: other`, made from one line, for several texts",
        separate_documents,
        "a.txt: can't be encoded with tokenizer `other` and separator '\\n': the tokenizer's "
        "vocabulary of 2 characters lacks '\\n' (U+000A); leave it out, or choose another "
        "tokenizer or separator",
    ),
]
