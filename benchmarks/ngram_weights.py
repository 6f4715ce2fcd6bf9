"""Find good values of `ngram.weight` and `ngram.caution` on held-out text.

    python benchmarks/ngram_weights.py shakespeare_char [--directory DIRECTORY]

Splits the training split of a run's dataset again and holds out its last tenth. Trains the run's
GPT and counts n-grams on the rest, then measures their mixture on the tenth. The validation split
is never read. A GPT trained on the whole training split would have memorized the tenth, and the
n-grams would get too little weight.

For each order, prints the loss with the best of the tested weights and cautions, and with the best
weight for a caution of 0 (the same weight everywhere). DIRECTORY keeps the dataset and the GPT for
the next call.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.artifacts.states import TrainingState  # noqa: E402
from nanogpt.config.corpora import Corpus, Dataset  # noqa: E402
from nanogpt.config.loading import read  # noqa: E402
from nanogpt.config.resolving import resolve_run  # noqa: E402
from nanogpt.config.schema import Run  # noqa: E402
from nanogpt.data.batches import load  # noqa: E402
from nanogpt.data.preparing import prepare  # noqa: E402
from nanogpt.devices import resolve  # noqa: E402
from nanogpt.evaluation.survey import survey_split  # noqa: E402
from nanogpt.evaluation.symbols import describe_symbols  # noqa: E402
from nanogpt.model.checkpoints import load_model  # noqa: E402
from nanogpt.ngram.counts import count  # noqa: E402
from nanogpt.ngram.trie import Predictions, build_trie  # noqa: E402
from nanogpt.training.loop import train  # noqa: E402

ORDERS = (5, 6, 7, 8, 9, 10)
WEIGHTS = np.arange(0.4, 1.001, 0.05).round(2).tolist()
CAUTIONS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)


def main() -> None:
    """Make the dataset and the GPT unless they exist, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("run", help="a run of config.yaml whose dataset exists")
    parser.add_argument("--directory", type=Path, help="where to keep the dataset and the GPT")
    args = parser.parse_args()
    run = resolve_run(read(PROJECT / "config.yaml"), args.run)
    with tempfile.TemporaryDirectory() as temporary:
        directory = args.directory or Path(temporary)
        if not (directory / "model/model.safetensors").exists():
            make(run, directory)
        report(directory, run)


def make(run: Run, directory: Path) -> None:
    """Make a dataset from the run's training split, and train a GPT on nine tenths of it."""
    source = load(PROJECT / "results/datasets" / run.dataset)
    directory.mkdir(parents=True, exist_ok=True)
    text = directory / "train.txt"
    text.write_text(source.tokenizer.decode(source.train), encoding="utf-8", newline="")
    settings = Dataset(
        tokenizer=str(PROJECT / "results/datasets" / run.dataset), val_ratio=0.1, split="position"
    )
    tokenizer = PROJECT / "results/datasets" / run.dataset / "tokenizer.json"
    corpus = Corpus(files=[str(text)], encoding="utf-8")
    prepare([text], corpus, settings, directory / "dataset", tokenizer_file=tokenizer)
    state = TrainingState(directory / "state", "held-out")
    train("held-out", directory / "dataset", run.model, resolve(run.train), state, directory)


def report(directory: Path, run: Run) -> None:
    """Print the losses on the held-out tenth."""
    files, model = load(directory / "dataset"), load_model(directory / "model").model
    settings = run.eval.model_copy(update={"device": "cpu", "dtype": "float32"})
    survey = survey_split(model, files.val, describe_symbols(files.tokenizer), settings)
    gpt = np.exp(-survey.token_nats.astype(np.float64))
    within = np.arange(len(gpt)) % run.model.block_size + 1
    print(f"GPT alone: {survey.token_nats.mean(dtype=np.float64):.4f} nats on {len(gpt):,} tokens")
    print("order  contexts        n-grams  weight  loss    weight  caution  loss")
    for order in ORDERS:
        trie = build_trie(count(files.train[:], files.tokenizer.vocab_size, order))
        for name, n_before in (("across windows", None), ("within windows", within)):
            ngrams = trie.probabilities(files.val, n_before)
            fixed = best(gpt, ngrams, (0.0,))
            free = best(gpt, ngrams, CAUTIONS)
            alone = -np.log(ngrams.p).mean()
            print(
                f"{order:<5}  {name}  {alone:<7.4f}  {fixed[1]:<6g}  {fixed[0]:.4f}  "
                f"{free[1]:<6g}  {free[2]:<7g}  {free[0]:.4f}"
            )


def best(
    gpt: NDArray[np.float64], ngrams: Predictions, cautions: tuple[float, ...]
) -> tuple[float, float, float]:
    """The lowest loss of a mixture, with its weight and caution."""

    def loss(weight: float, caution: float) -> float:
        share = weight * (1 - ngrams.held_back) ** caution
        return float(-np.log((1 - share) * gpt + share * ngrams.p).mean())

    return min((loss(w, c), w, c) for w, c in itertools.product(WEIGHTS, cautions))


if __name__ == "__main__":
    main()
