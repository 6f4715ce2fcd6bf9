"""Ensembles: runs that average other runs' predictions."""

from tests.mistakes.base import CONFIG, Mistake, command, write_files
from tests.mistakes.settings import setting


def ensemble(title: str, entry: str, message: str) -> Mistake:
    """A config with runs `first` and `second` on one dataset, and a run `both`."""
    runs = f"first: {{dataset: letters}}, second: {{dataset: letters}}, both: {entry}"
    return setting(title, f"runs: {{{runs}}}", message)


ENSEMBLES = [
    ensemble(
        "an ensemble with an unknown run",
        "{ensemble: [first, secnd]}",
        "runs.both.ensemble: no run `secnd`; did you mean `second`?",
    ),
    ensemble(
        "an ensemble with settings for training",
        "{ensemble: [first, second], train: {max_iters: 3}}",
        "runs.both.train: an ensemble isn't trained; remove `train`",
    ),
    ensemble(
        "an empty ensemble",
        "{ensemble: []}",
        "runs.both.ensemble: the list is empty; list some runs, or remove it",
    ),
    ensemble(
        "an ensemble with a sweep",
        "{ensemble: [first], sweep: {seed: [1, 2]}}",
        "runs.both.sweep: an ensemble isn't trained; remove `sweep`",
    ),
    ensemble(
        "the same run twice in an ensemble",
        "{ensemble: [first, first]}",
        "runs.both.ensemble: `first` is listed twice; remove one",
    ),
    ensemble(
        "an ensemble of an ensemble",
        "{ensemble: [first, second]}, all: {ensemble: [first, both]}",
        "runs.all.ensemble: `both` is an ensemble; list its runs instead",
    ),
    setting(
        "an ensemble of runs on two datasets",
        "{datasets: {letters: {corpus: text}, others: {corpus: text}}, runs: {first: {dataset: "
        "letters}, second: {dataset: others}, both: {ensemble: [first, second]}}}",
        "runs.both.ensemble: `first` is trained on `letters`, but `second` on `others`; list runs "
        "with the same dataset",
    ),
    setting(
        "an ensemble in the report",
        "{runs: {first: {dataset: letters}, both: {ensemble: [first]}}, report: {runs: [both]}}",
        "report.runs: `both` is an ensemble, which has no curve; list its runs instead",
    ),
    command(
        "a benchmark of an ensemble",
        "bench both",
        "runs.both: an ensemble isn't trained, so it has no loss curve and no speed; use one of "
        "its runs: `first`",
        lambda: write_files(
            {"config.yaml": CONFIG.replace("runs: {", "runs: {both: {ensemble: [first]}, ")}
        ),
    ),
]
