"""Mistakes in sweeps."""

from tests.mistakes.base import CONFIG, Mistake, command, write_files
from tests.mistakes.settings import setting


def sweep(title: str, swept: str, message: str) -> Mistake:
    """A run `r` with this sweep."""
    return setting(title, f"runs: {{r: {{dataset: letters, sweep: {swept}}}}}", message)


SWEEPS = [
    command(
        "a sweep instead of a run",
        "config sizes",
        "runs: `sizes` is a sweep; use one of its runs: `sizes.seed-1`, `sizes.seed-2`, "
        "`sizes.seed-3` and 1 more",
        lambda: write_files(
            {"config.yaml": CONFIG.replace("first: {", "sizes: {sweep: {seed: [1, 2, 3, 4]}, ")}
        ),
    ),
    sweep(
        "an empty sweep",
        "{}",
        "runs.r.sweep: the sweep is empty; list settings with their values, or remove it",
    ),
    sweep(
        "a misspelled setting in a sweep",
        "{train.learning_rat: [1e-3]}",
        "runs.r.sweep.train.learning_rat: unknown setting; did you mean `train.learning_rate`?",
    ),
    sweep(
        "a swept setting without its group",
        "{dtype: [float32, bfloat16]}",
        "runs.r.sweep.dtype: unknown setting; did you mean `train.dtype` or `eval.dtype` or "
        "`sample.dtype`?",
    ),
    sweep(
        "an unknown setting in a sweep",
        "{zzz: [1]}",
        "runs.r.sweep.zzz: unknown setting; write its group too, as in `train.max_iters`",
    ),
    sweep(
        "a single value instead of a list",
        "{seed: 3}",
        "runs.r.sweep.seed: should be a list (found `3`)",
    ),
    sweep(
        "an empty list of values",
        "{seed: []}",
        "runs.r.sweep.seed: the list is empty; list some values, or remove it",
    ),
    sweep(
        "lists as values of a sweep",
        "{train.milestones: [[5], [10]]}",
        "runs.r.sweep.train.milestones: a list or mapping can't be swept (found `[5]`); write "
        "these runs one by one",
    ),
    sweep(
        "a swept value out of range",
        "{model.dropout: [0, 1]}",
        "runs.r.sweep.model.dropout: should be less than 1 (found `1`)",
    ),
    sweep(
        "a word for a number in a sweep",
        "{model.n_layer: [one, two]}",
        "runs.r.sweep.model.n_layer: should be a number, such as 10000, 10_000 or 1e4 (found "
        "`one`)",
    ),
    sweep(
        "an unknown model in a sweep",
        "{model: [tinny]}",
        "runs.r.sweep.model: no model `tinny`; did you mean `tiny`?",
    ),
    sweep(
        "an unknown dataset in a sweep",
        "{dataset: [leters]}",
        "runs.r.sweep.dataset: no dataset `leters`; did you mean `letters`?",
    ),
    sweep(
        "the same value twice in a sweep",
        "{seed: [1, 2, 1]}",
        "runs.r.sweep.seed: `1` is listed twice; remove one",
    ),
    sweep(
        "the same number twice in a sweep, written differently",
        "{train.learning_rate: [1e-3, 0.001]}",
        "runs.r.sweep.train.learning_rate: `0.001` equals `1e-3`; remove one",
    ),
    sweep(
        "a setting swept under both of its names",
        "{seed: [1, 2], train.seed: [3, 4]}",
        "runs.r.sweep.train.seed: same setting as `seed`; remove one of them",
    ),
    sweep(
        "a swept value that can't be part of a name",
        "{sample.start: [Once upon]}",
        "runs.r.sweep.sample.start: `Once upon` can't be part of a run's name, which has only "
        "letters, digits, `.`, `-` and `_`; write these runs one by one",
    ),
    sweep(
        "n_head that doesn't divide n_embd, in a sweep",
        "{model.n_embd: [8], model.n_head: [2, 3]}",
        "runs.r.n_embd-8.n_head-3.model: n_embd 8 is not divisible by n_head 3; change one of them",
    ),
    sweep(
        "a swept value too long for a name",
        f"{{sample.start: [{193 * 'a'}]}}",
        f"runs.r.sweep: the run name `r.start-{72 * 'a'}…` would have 201 characters, but the "
        "limit is 200; shorten the run's name or the swept values",
    ),
    setting(
        "a run with the name of a sweep's run",
        "runs: {r: {dataset: letters, sweep: {seed: [1, 2]}}, r.seed-2: {dataset: letters}}",
        "runs.r.sweep: would create a run `r.seed-2`, but a run, dataset or text already has that "
        "name; rename it, or rename the sweep",
    ),
    setting(
        "two runs of a sweep with the same name",
        "{datasets: {a: {corpus: text}, a.model-b: {corpus: text}}, models: {b.model-c: {}, c: {}},"
        " runs: {r: {sweep: {dataset: [a, a.model-b], model: [b.model-c, c]}}}}",
        "runs.r.sweep: two of its runs would have the name `r.dataset-a.model-b.model-c`; reorder "
        "its settings, or rename a value",
    ),
    setting(
        "a run and its sweep in the report",
        "{runs: {r: {dataset: letters, sweep: {seed: [1, 2]}}}, report: {runs: [r, r.seed-2]}}",
        "report.runs: `r.seed-2` is also a run of the sweep `r`; remove one of them",
    ),
]
