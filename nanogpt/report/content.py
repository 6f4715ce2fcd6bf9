"""The content of a report as data: findings, tables, samples, settings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from nanogpt.errors import plural
from nanogpt.report.columns import COLUMNS, Column
from nanogpt.report.compare import environments, seeds_table, settings_that_differ
from nanogpt.report.formats import setting_text
from nanogpt.report.looks import Look, measured_rows
from nanogpt.report.run import Run

MOST_SAMPLES = 24  # on the page
SMALLEST_FILTERED = 15  # with this many runs or more, the page has a filter

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; the first cell of a row is its name."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Cell:
    """A cell of the table of runs. value: its sort key; empty if unknown."""

    text: str
    value: str | float


@dataclass(frozen=True)
class RunLine:
    """A row of the table of runs. group: its group of seeds."""

    cells: Sequence[Cell]
    look: Look
    status: str
    dataset: str
    group: str

    @property
    def sweep(self) -> str:
        """The start of the name, which runs of a sweep share."""
        return str(self.cells[0].value).partition(".")[0]


@dataclass(frozen=True)
class RunsTable:
    """The table of runs, without the columns that are empty for all of them."""

    columns: Sequence[Column]
    lines: Sequence[RunLine]


@dataclass(frozen=True)
class Finding:
    """The best run on a dataset and its reference points, all in bits per byte.

    ngram, order: the best n-gram model. mixed, mixed_run: the best run that mixes n-grams into its
    GPT. source: the entropy of a built-in corpus.
    """

    dataset: str
    run: str
    bits_per_byte: str
    ngram: str | None
    order: int | None
    mixed: str | None
    mixed_run: str | None
    source: str | None


@dataclass(frozen=True)
class Sample:
    """A generated text."""

    run: str
    look: Look
    text: str


@dataclass(frozen=True)
class Note:
    """The reason why some runs aren't finished. runs: their names."""

    runs: str
    status: str
    text: str


@dataclass(frozen=True)
class Machine:
    """The machine that some runs were trained on. runs: their names."""

    values: Mapping[str, str]
    runs: str


@dataclass(frozen=True)
class Content:
    """Everything that index.html and report.md show except the charts.

    n_left_out: the number of runs whose samples aren't shown. key: the look of each group that the
    charts label. n_groups, n_drawn: how many groups of runs have curves, and how many the charts of
    curves show. shared: settings that all runs share. is_filtered: whether the page has a filter.
    """

    title: str
    findings: Sequence[Finding]
    runs: RunsTable
    notes: Sequence[Note]
    seeds: Table
    kinds: Table
    copying: Table
    samples: Sequence[Sample]
    n_left_out: int
    key: Sequence[tuple[Look, str]]
    n_groups: int
    n_drawn: int
    settings: Table
    shared: Mapping[str, str]
    machines: Sequence[Machine]
    is_filtered: bool


def gather_content(runs: Sequence[Run], rows: pd.DataFrame, looks: Mapping[str, Look]) -> Content:
    """Collect the content of a report. rows: from `compare.table`. looks: by group."""
    differ, shared = settings_that_differ(runs)
    samples = _samples_to_show(runs)
    return Content(
        title=f"{plural(len(runs), 'run')} on {_join(dict.fromkeys(rows['dataset']))}",
        findings=_findings(runs, rows),
        runs=_runs_table(rows, looks),
        notes=_notes(runs),
        seeds=_seeds_table(seeds_table(runs)),
        kinds=_kinds_table(runs),
        copying=_copying_table(runs),
        samples=[Sample(_sampled(run), looks[run.group], text) for run, text in samples],
        n_left_out=sum(run.sample is not None for run in runs) - len(samples),
        key=[(look, group) for group, look in looks.items() if look.is_named],
        n_groups=measured_rows(rows)["group"].nunique(),
        n_drawn=sum(look.is_drawn for look in looks.values()),
        settings=Table(
            ["run", *differ],
            [[run.name, *(_setting(run, name) for name in differ)] for run in runs],
        ),
        shared={name: setting_text(value) for name, value in shared.items()},
        machines=[
            Machine({name: setting_text(value) for name, value in values.items()}, _few(names))
            for values, names in environments(runs)
        ],
        is_filtered=len(runs) >= SMALLEST_FILTERED,
    )


def _samples_to_show(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    """Return the first run of each group and sampling settings, with its sample."""
    firsts: dict[str, tuple[Run, str]] = {}
    for run in runs:
        if run.sample is not None:
            of_samples = ("sample.", "ngram.")
            settings = {n: v for n, v in run.settings.items() if n.startswith(of_samples)}
            firsts.setdefault(f"{run.group} {settings}", (run, run.sample))
    return list(firsts.values())[:MOST_SAMPLES]


def _sampled(run: Run) -> str:
    """Return a sample's title."""
    is_mixed = run.evaluation and run.evaluation.mixture
    return f"{run.name}, with n-grams" if is_mixed else run.name


def _notes(runs: Sequence[Run]) -> list[Note]:
    """Return the runs' notes, with runs that share a note listed together."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if run.note:
            found.setdefault((run.status, run.note), []).append(run.name)
    return [Note(_few(names), status, note) for (status, note), names in found.items()]


def _join(names: Iterable[str]) -> str:
    """`a, b and c`."""
    names = [name for name in names if name]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or DASH


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest


def _findings(runs: Sequence[Run], rows: pd.DataFrame) -> list[Finding]:
    """Find the best finished run on each dataset."""
    findings = []
    evaluated = rows[rows["val_bits_per_byte"].notna() & (rows["status"] == "finished")]
    for dataset, members in evaluated.groupby("dataset", sort=False):
        best = members.sort_values("val_bits_per_byte", kind="stable").iloc[0]
        run = next(run for run in runs if run.name == best["run"])
        mixed = members[members["mixture_bits_per_byte"].notna()]
        mixed = mixed.sort_values("mixture_bits_per_byte", kind="stable").head(1)
        source = run.evaluation.source if run.evaluation else None
        findings.append(
            Finding(
                str(dataset),
                run.name,
                f"{best['val_bits_per_byte']:.3f}",
                f"{run.ngram.best.bits_per_byte:.3f}" if run.ngram else None,
                run.ngram.best.order if run.ngram else None,
                f"{mixed['mixture_bits_per_byte'].iloc[0]:.3f}" if len(mixed) else None,
                str(mixed["run"].iloc[0]) if len(mixed) else None,
                f"{source.bits_per_byte:.3f}" if source else None,
            )
        )
    return findings


# --- Tables -----------------------------------------------------------------------------------


def _runs_table(rows: pd.DataFrame, looks: Mapping[str, Look]) -> RunsTable:
    columns = [
        column
        for column in COLUMNS
        if column.form and (column.name in ("run", "dataset") or rows[column.name].notna().any())
    ]
    lines = []
    for _, row in rows.iterrows():
        cells = []
        for column in columns:
            value = row[column.name]
            is_known = not (pd.isna(value) or value == "")
            assert column.form
            text = column.form(value) if is_known else DASH
            cells.append(Cell(text, value if is_known else ""))
        group = row["group"]
        lines.append(RunLine(cells, looks[group], row["status"], row["dataset"], group))
    return RunsTable(columns, lines)


def _seeds_table(seeds: pd.DataFrame) -> Table:
    rows = []
    for _, row in seeds.iterrows():
        n_seeds, n_tried = row["seeds"], row["tried"]
        rows.append(
            [
                row["group"],
                row["dataset"],
                f"{n_seeds} of {n_tried}" if n_seeds < n_tried else str(n_seeds),
                _with_half_width(row, "val_loss_nats_per_token", "{:.4f}"),
                _with_half_width(row, "val_bits_per_byte", "{:.4f}"),
                _with_half_width(row, "training_seconds", "{:,.0f}"),
            ]
        )
    headings = ["group", "dataset", "seeds", "val loss (nats/token)", "bits per byte"]
    return Table([*headings, "training time (s)"], rows)


def _with_half_width(row: "pd.Series[float]", measure: str, form: str) -> str:
    return f"{form.format(row[measure])} ± {form.format(row[f'{measure}_half_width'])}"


def _first_of_groups(runs: Sequence[Run]) -> list[Run]:
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.evaluation:
            firsts.setdefault(run.group, run)
    return list(firsts.values())


def _kinds_table(runs: Sequence[Run]) -> Table:
    """Return the loss by kind of token and its share of the total, for each group's first run."""
    of_runs = {
        run.name: run.evaluation.by_kind
        for run in _first_of_groups(runs)
        if run.evaluation and run.evaluation.by_kind
    }
    kinds = list(dict.fromkeys(kind for by_kind in of_runs.values() for kind in by_kind))
    rows = []
    for name, by_kind in of_runs.items():
        cells = []
        for kind in kinds:
            loss, share = math.nan, math.nan
            if kind in by_kind:
                loss, share = by_kind[kind].loss, by_kind[kind].share_of_loss
            is_known = math.isfinite(loss) and math.isfinite(share)
            cells.append(f"{loss:.3f} ({100 * share:.0f} %)" if is_known else DASH)
        rows.append([name, *cells])
    return Table(["run", *(kind.replace("_", " ") for kind in kinds)], rows)


def _copying_table(runs: Sequence[Run]) -> Table:
    """Return the shares of n-grams found in the training split, for generated and real text."""
    rows = []
    for run in _first_of_groups(runs):
        copying = run.evaluation.copying if run.evaluation else None
        if copying:
            reference = copying.reference
            shares = [copying.of_8, copying.of_16, copying.of_32]
            shares += [reference.of_8, reference.of_16, reference.of_32]
            rows.append([run.name, *map(_percent, shares)])
    lengths = [f"{length}-grams" for length in (8, 16, 32)]
    return Table(["run", *lengths, *(f"validation text, {length}" for length in lengths)], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else DASH


def _setting(run: Run, name: str) -> str:
    return setting_text(run.settings[name]) if name in run.settings else DASH
