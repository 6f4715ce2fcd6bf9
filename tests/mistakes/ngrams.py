"""N-grams that are damaged or don't match their model."""

from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file, save_file

from nanogpt.cli.main import main
from nanogpt.config.schema import EvalSettings, NgramSettings
from nanogpt.data.batches import load
from nanogpt.evaluation.evaluate import evaluate
from nanogpt.ngram.counts import count_split
from nanogpt.project import NGRAMS_FILE
from tests.mistakes.base import TEXT, Mistake, code, workflow
from tests.mistakes.materials import BOOK, MODEL, make_dataset, make_model, prepare_book

COUNTS_FILE = MODEL / NGRAMS_FILE


def make_ngrams() -> None:
    """The n-grams of dataset `book` in the directory of a model with its vocabulary."""
    make_dataset()
    make_model("".join(sorted(set(TEXT))))
    count_split(BOOK, NgramSettings(max_order=3), COUNTS_FILE)


def damaged_ngrams(
    title: str, shown: str, damage: Callable[[bytes], bytes], message: str
) -> Mistake:
    """Sampling from a model with changed bytes in its n-grams."""

    def make() -> None:
        make_ngrams()
        COUNTS_FILE.write_bytes(damage(COUNTS_FILE.read_bytes()))
        main(["sample", str(MODEL)])

    return Mistake(title, shown, make, message)


def without_count(_: bytes) -> bytes:
    """The file with one count set to zero."""
    arrays = load_file(COUNTS_FILE)
    arrays["counts"][0] = 0
    header = COUNTS_FILE.read_bytes().partition(b'"ngrams":"')[2].partition(b'"}')[0]
    save_file(arrays, COUNTS_FILE, {"ngrams": header.decode().replace('\\"', '"')})
    return COUNTS_FILE.read_bytes()


def sample_another_vocabulary() -> None:
    make_ngrams()
    make_model("abc")
    main(["sample", str(MODEL)])


def evaluate_another_dataset() -> None:
    make_ngrams()
    prepare_book({"book.txt": TEXT * 2}, {})
    assert load(BOOK).tokenizer
    evaluate("demo", BOOK, MODEL, EvalSettings(device="cpu"), Path("eval.json"), COUNTS_FILE)


NGRAMS = [
    damaged_ngrams(
        "truncated n-grams",
        "`ngrams.safetensors` cut in half",
        lambda data: data[: len(data) // 2],
        "results/demo/model/ngrams.safetensors: damaged (Error while deserializing header: "
        "incomplete metadata, file not fully covered); delete the file and run the workflow again",
    ),
    damaged_ngrams(
        "weights instead of n-grams",
        "`model.safetensors` copied over `ngrams.safetensors`",
        lambda _: (MODEL / "model.safetensors").read_bytes(),
        "results/demo/model/ngrams.safetensors: not an n-gram file of nanogpt; delete the file "
        "and run the workflow again",
    ),
    damaged_ngrams(
        "an n-gram with an impossible count",
        "a count of 0",
        without_count,
        "results/demo/model/ngrams.safetensors: damaged (a token or a count is out of range); "
        "delete the file and run the workflow again",
    ),
    Mistake(
        "n-grams with another vocabulary",
        "`ngrams.safetensors` copied from another run",
        sample_another_vocabulary,
        "results/demo/model/ngrams.safetensors: its vocabulary isn't the model's; delete the file "
        "and run the workflow again",
    ),
    Mistake(
        "n-grams of another dataset",
        "evaluated on a dataset other than the counted one",
        evaluate_another_dataset,
        "results/demo/model/ngrams.safetensors: its counts don't match the training split in "
        "results/datasets/book; delete the file and run the workflow again",
    ),
    workflow(
        "n-grams of a run without them",
        code("snakemake results/book/model/ngrams.safetensors"),
        "results/book/model/ngrams.safetensors",
        "runs.book: this run doesn't use n-grams; set `ngram: on` for it",
        "texts/a.txt",
    ),
]
