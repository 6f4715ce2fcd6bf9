"""N-grams beside a model that don't belong to it, or are damaged."""

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
    """The n-grams of the dataset `book` beside a model of its letters."""
    make_dataset()
    make_model("".join(sorted(set(TEXT))))
    count_split(BOOK, NgramSettings(max_order=3), COUNTS_FILE)


def damaged_ngrams(
    title: str, shown: str, damage: Callable[[bytes], bytes], message: str
) -> Mistake:
    """N-grams whose bytes were changed, beside a model that is sampled from."""

    def make() -> None:
        make_ngrams()
        COUNTS_FILE.write_bytes(damage(COUNTS_FILE.read_bytes()))
        main(["sample", str(MODEL)])

    return Mistake(title, shown, make, message)


def without_count(_: bytes) -> bytes:
    """The file with a count of zero."""
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
        "n-grams cut in half",
        "`ngrams.safetensors` cut in half",
        lambda data: data[: len(data) // 2],
        "results/demo/model/ngrams.safetensors: damaged (Error while deserializing header: "
        "incomplete metadata, file not fully covered); remove it, and make it again",
    ),
    damaged_ngrams(
        "weights in place of n-grams",
        "`model.safetensors` copied over `ngrams.safetensors`",
        lambda _: (MODEL / "model.safetensors").read_bytes(),
        "results/demo/model/ngrams.safetensors: no n-grams of nanogpt; remove it, and make it "
        "again",
    ),
    damaged_ngrams(
        "an n-gram that never occurs",
        "a count of 0",
        without_count,
        "results/demo/model/ngrams.safetensors: damaged (a token or a count that can't be); "
        "remove it, and make it again",
    ),
    Mistake(
        "n-grams of another vocabulary",
        "`ngrams.safetensors` of another run beside a model",
        sample_another_vocabulary,
        "results/demo/model/ngrams.safetensors: counted with another vocabulary than the model "
        "beside it has; make the run's n-grams again",
    ),
    Mistake(
        "n-grams of another dataset",
        "evaluated on a dataset that wasn't counted",
        evaluate_another_dataset,
        "results/demo/model/ngrams.safetensors: counted on a different training split from "
        "results/datasets/book; remove it, and make the run's n-grams again",
    ),
    workflow(
        "n-grams of a run that mixes none",
        code("snakemake results/book/model/ngrams.safetensors"),
        "results/book/model/ngrams.safetensors",
        "runs.book: this run doesn't use n-grams; set `ngram: on` for it",
        "texts/a.txt",
    ),
]
