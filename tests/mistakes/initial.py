"""Runs that start from another model's weights."""

from nanogpt.config.loading import load
from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import ModelSettings
from nanogpt.data.tokenizers import char_tokenizer
from nanogpt.model.checkpoints import save_ensemble
from nanogpt.model.gpt import GPT
from nanogpt.training.initial import load_initial
from tests.mistakes.base import Mistake, code
from tests.mistakes.materials import MODEL, TINY, edit_json, make_model
from tests.mistakes.settings import setting

DATASETS = "datasets: {letters: {corpus: text}, others: {corpus: text, tokenizer: letters}}, "


def begins(
    title: str, fine: str, message: str, *, more: str = "", datasets: str = DATASETS
) -> Mistake:
    """A config with a run `first`, and a run `fine` that starts from another model."""
    runs = f"runs: {{first: {{dataset: letters, model: tiny}}, fine: {fine}{more}}}"
    return setting(title, f"{{{datasets}{runs}}}", message)


def missing_directory() -> None:
    runs = {"fine": {"dataset": "letters", "train": {"init_from": "models/base"}}}
    config = {"corpora": {"text": {"files": "a.txt"}}, "datasets": {"letters": {"corpus": "text"}}}
    resolve_run(load({**config, "runs": runs}), "fine")


def begin(letters: str = "abc \n", settings: ModelSettings = TINY) -> None:
    """Start from the model of `make_model`, on a dataset of these letters."""
    tokenizer = char_tokenizer(letters)
    load_initial(GPT(settings, tokenizer.vocab_size), tokenizer, MODEL, "fine")


def other_tokens() -> None:
    make_model()
    begin("abcdefg")


def other_settings() -> None:
    make_model()
    edit_json(MODEL / "config.json", activation="relu2")
    begin()


def averaged() -> None:
    make_model()
    save_ensemble(MODEL, [MODEL, MODEL])
    begin()


def cut_short() -> None:
    make_model()
    path = MODEL / "model.safetensors"
    path.write_bytes(path.read_bytes()[:10])
    begin()


FINE = "{dataset: others, train: {init_from: %s}}"

INITIAL = [
    begins(
        "starting from a run that doesn't exist",
        FINE % "frst",
        "runs.fine.train.init_from: no run `frst`; did you mean `first`?",
    ),
    begins(
        "starting from a misspelled GPT-2 size",
        FINE % "gpt2-xxl",
        "runs.fine.train.init_from: no run `gpt2-xxl`; did you mean `gpt2-xl`?",
    ),
    begins(
        "starting from a sweep",
        FINE % "seeds",
        "runs.fine.train.init_from: `seeds` is a sweep; use one of its runs: `seeds.seed-1`, "
        "`seeds.seed-2`, `seeds.seed-3` and 1 more",
        more=", seeds: {dataset: letters, sweep: {seed: [1, 2, 3, 4]}}",
    ),
    begins(
        "starting from an ensemble",
        FINE % "both",
        "runs.fine.train.init_from: `both` is an ensemble; use one of its runs: `first`",
        more=", both: {ensemble: [first]}",
    ),
    begins(
        "runs that start from each other",
        FINE % "second",
        "runs.fine.train.init_from: circular reference: fine -> second -> fine; remove "
        "`init_from` from one of them",
        more=", second: {dataset: letters, train: {init_from: fine}}",
    ),
    begins(
        "a different architecture from the initial run's",
        "{dataset: others, model: {n_layer: 4}, train: {init_from: first}}",
        "runs.fine.model: `n_layer` is 4, but 1 in the initial model `first`; remove `n_layer` "
        "from the run's settings",
    ),
    begins(
        "a longer context than the initial run's",
        "{dataset: others, model: {block_size: 16}, train: {init_from: first}}",
        "runs.fine.model: `block_size` 16 is larger than that of the initial model `first`, 8; "
        "lower or remove it",
    ),
    begins(
        "a different tokenizer from the initial run's",
        FINE % "first",
        "runs.fine.train.init_from: `first` uses the tokenizer of dataset `letters`, but this run "
        "uses the tokenizer of dataset `others`; set `tokenizer: letters` in `datasets.others`, "
        "or make another dataset with `nanogpt prepare others --tokenizer=letters`",
        datasets="datasets: {letters: {corpus: text}, others: {corpus: text}}, ",
    ),
    begins(
        "starting from GPT-2 with a different tokenizer",
        FINE % "gpt2",
        "runs.fine.train.init_from: `gpt2` uses GPT-2's tokenizer, but this run uses the "
        "tokenizer of dataset `letters`; set `tokenizer: gpt2` in `datasets.others`, or make "
        "another dataset with `nanogpt prepare others --tokenizer=gpt2`",
    ),
    Mistake(
        "starting from a directory that doesn't exist",
        code("train: {init_from: models/base}"),
        missing_directory,
        "runs.fine.train.init_from: models/base: not a model directory: config.json is missing; "
        "use a run, a model directory, or one of gpt2, gpt2-medium, gpt2-large, gpt2-xl",
    ),
    Mistake(
        "starting from a model directory with a different tokenizer",
        code("train: {init_from: results/demo/model}"),
        other_tokens,
        "runs.fine.train.init_from: results/demo/model: its vocabulary (5 tokens) isn't the "
        "dataset's (7 tokens); give the dataset that model's tokenizer (`tokenizer: <its "
        "dataset>`, or `tokenizer: gpt2`)",
    ),
    Mistake(
        "an initial model directory whose architecture changed after the config was read",
        code("train: {init_from: results/demo/model}"),
        other_settings,
        "runs.fine.model: `activation` is gelu, but relu2 in the initial model "
        "`results/demo/model`; remove `activation` from the run's settings",
    ),
    Mistake(
        "starting from an ensemble's directory",
        code("train: {init_from: results/both/model}"),
        averaged,
        "runs.fine.train.init_from: results/demo/model: can't train from architecture `ensemble`; "
        "name the directory of a single GPT",
    ),
    Mistake(
        "starting from a damaged model",
        "the other run's `model.safetensors`, cut short",
        cut_short,
        "results/demo/model/model.safetensors: damaged (Error while deserializing header: invalid "
        "header length); delete the file and run the workflow again",
    ),
]
