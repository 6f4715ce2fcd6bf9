"""The report: a page that stands alone, the same as Markdown, and a table with its dictionary.

What runs left is read by results.py, put side by side by compare.py and drawn by plots.py; which
runs are compared is the caller's choice. The page's looks and its few lines of script are in
templates/report.html.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import write_text
from nanogpt.report import compare, plots
from nanogpt.report.compare import COLUMNS
from nanogpt.report.plots import LOSS_OVER, Look
from nanogpt.report.runs import Run

CHARTS = (*(f"loss_{name}" for name in LOSS_OVER), "scaling", "speed", "position", "calibration")

MOST_SAMPLES = 24  # on the page
SMALLEST_FILTERED = 15  # runs from which on the page has a field to choose among them

DASH = "\N{EN DASH}"


def write_report(runs: Sequence[Run], directory: Path) -> str:
    """Compare runs: index.html, report.md, runs.csv, its dictionary columns.csv, and the charts.

    The same runs give the same bytes. Returns what there is to say of it in one line.

    Errors: UserError for no runs.
    """
    if not runs:
        raise UserError("no runs to report on; name at least one in report.runs, or train one")
    rows = compare.table(runs)
    look = plots.looks(rows)
    loss = plots.loss_plots(runs, look)
    charts = {f"loss_{name}": chart for name, chart in loss.items()} | {
        "scaling": plots.scaling_plot(runs, look),
        "speed": plots.speed_plot(runs, look),
        "position": plots.position_plot(runs, look),
        "calibration": plots.calibration_plot(runs, look),
    }
    assert tuple(charts) == CHARTS
    said = _say(runs, rows, look)
    write_text(directory / "index.html", _page(said, charts))
    write_text(directory / "report.md", _markdown(said))
    write_text(directory / "runs.csv", rows.to_csv(index=False, lineterminator="\n"))
    dictionary = pd.DataFrame(
        [(column.name, column.unit, column.meaning) for column in COLUMNS],
        columns=["column", "unit", "meaning"],
    )
    write_text(directory / "columns.csv", dictionary.to_csv(index=False, lineterminator="\n"))
    # Canvas and CanvasText are white and black, or the other way round, as the reader's scheme has
    # it; both, since a page around it may know no dark. A program that does not know them draws
    # black. On our page a chart has the colour of the text around it.
    colours = "color-scheme: light dark; color: CanvasText; background: Canvas"
    style = f"<style>:root {{ {colours} }}</style>"
    for name, svg in charts.items():
        write_text(directory / f"{name}.svg", svg.replace("<defs>", style + "<defs>", 1))
    best = (f"{one['bits_per_byte']} bits per byte on {one['dataset']}" for one in said["findings"])
    return "; ".join([plural(len(runs), "run"), *best])


# --- What the page and report.md say --------------------------------------------------------


def _say(runs: Sequence[Run], rows: pd.DataFrame, look: Mapping[str, Look]) -> dict[str, Any]:
    differ, shared = compare.settings_that_differ(runs)
    shown = _samples_to_show(runs)
    return {
        "title": f"{plural(len(runs), 'run')} on {_listed(dict.fromkeys(rows['dataset']))}",
        "findings": _findings(runs, rows),
        "runs": _table(rows, look),
        "seeds": _seeds_table(compare.seeds_table(runs)),
        "kinds": _kinds_table(runs),
        "copying": _copying_table(runs),
        "samples": [
            {"run": run.name, "look": look[run.group], "text": run.sample} for run in shown
        ],
        "n_left_out": sum(run.sample is not None for run in runs) - len(shown),
        "key": [(look[group], group) for group in look if look[group].named],
        "settings": {
            "headings": ["run", *differ],
            "rows": [[run.name, *(_value(run, name) for name in differ)] for run in runs],
        },
        "shared": {name: _written(value) for name, value in shared.items()},
        "environments": [
            ({name: _written(value) for name, value in said.items()}, _few(names))
            for said, names in compare.environments(runs)
        ],
        "notes": _notes(runs),
        "dictionary": [column for column in COLUMNS if column.meaning],
        "filtered": len(runs) >= SMALLEST_FILTERED,
    }


def _samples_to_show(runs: Sequence[Run]) -> list[Run]:
    """The first run of each group and settings of sampling."""
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.sample is not None:
            settings = {n: v for n, v in run.settings.items() if n.startswith("sample.")}
            firsts.setdefault(f"{run.group} {settings}", run)
    return list(firsts.values())[:MOST_SAMPLES]


def _notes(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """What hinders runs: names, status and reason; runs with the same reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if run.note:
            found.setdefault((run.status, run.note), []).append(run.name)
    return [(_few(names), status, note) for (status, note), names in found.items()]


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    names = [name for name in names if name]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or DASH


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest


def _first_of_groups(runs: Sequence[Run]) -> list[Run]:
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.evaluation:
            firsts.setdefault(run.group, run)
    return list(firsts.values())


def _findings(runs: Sequence[Run], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The best run of each dataset, and what its loss is held against, in bits per byte."""
    found = []
    evaluated = rows[rows["val_bits_per_byte"].notna() & (rows["status"] == "finished")]
    for dataset, members in evaluated.groupby("dataset", sort=False):
        best = members.sort_values("val_bits_per_byte", kind="stable").iloc[0]
        run = next(run for run in runs if run.name == best["run"])
        found.append(
            {
                "dataset": dataset,
                "run": run.name,
                "bits_per_byte": f"{best['val_bits_per_byte']:.3f}",
                "ngram": f"{best['ngram_bits_per_byte']:.3f}" if run.ngram else None,
                "order": run.ngram_best.get("order"),
                "source": f"{run.evaluation['source']['bits_per_byte']:.3f}"
                if run.evaluation.get("source")
                else None,
            }
        )
    return found


def _table(rows: pd.DataFrame, look: Mapping[str, Look]) -> dict[str, Any]:
    """The columns that anything is known of, each cell with what it is sorted by."""
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
            known = not (pd.isna(value) or value == "")
            assert column.form
            cells.append(
                {"text": column.form(value) if known else DASH, "value": value if known else ""}
            )
        lines.append({"cells": cells, "look": look[row["group"]], "status": row["status"]})
    return {"columns": columns, "lines": lines}


def _seeds_table(seeds: pd.DataFrame) -> dict[str, Any]:
    lines = [
        [
            row["group"],
            row["dataset"],
            f"{row['seeds']} of {row['tried']}"
            if row["seeds"] < row["tried"]
            else str(row["seeds"]),
            f"{row[loss]:.4f} ± {row[f'{loss}_half_width']:.4f}",
            f"{row[bits]:.4f} ± {row[f'{bits}_half_width']:.4f}",
            f"{row['training_seconds']:,.0f} ± {row['training_seconds_half_width']:,.0f}",
        ]
        for _, row in seeds.iterrows()
        for loss, bits in [("val_loss_nats_per_token", "val_bits_per_byte")]
    ]
    headings = ["group", "dataset", "seeds", "val loss (nats/token)", "bits per byte"]
    return {"headings": [*headings, "training time (s)"], "rows": lines}


def _kinds_table(runs: Sequence[Run]) -> dict[str, Any]:
    """Loss by kind of token, and how much of all loss it is; the first run of each group."""
    having = [run for run in _first_of_groups(runs) if run.evaluation.get("by_kind")]
    kinds = list(dict.fromkeys(kind for run in having for kind in run.evaluation["by_kind"]))

    def cell(run: Run, kind: str) -> str:
        said = run.evaluation["by_kind"].get(kind)
        if said is None or said["loss"] is None or said["share_of_loss"] is None:
            return DASH
        return f"{said['loss']:.3f} ({100 * said['share_of_loss']:.0f} %)"

    rows = [[run.name, *(cell(run, kind) for kind in kinds)] for run in having]
    return {"headings": ["run", *(kind.replace("_", " ") for kind in kinds)], "rows": rows}


def _copying_table(runs: Sequence[Run]) -> dict[str, Any]:
    """How much of a generated text stands in the training split, and of the validation split."""
    lengths = ("8", "16", "32")
    having = [run for run in _first_of_groups(runs) if run.evaluation.get("copying")]

    def percent(share: float | None) -> str:
        return DASH if share is None else f"{100 * share:.1f} %"

    rows = []
    for run in having:
        copying = run.evaluation["copying"]
        cells = [percent(copying[length]) for length in lengths]
        cells += [percent(copying["reference"][length]) for length in lengths]
        rows.append([run.name, *cells])
    headings = [f"{length}-grams" for length in lengths]
    headings += [f"validation text, {length}-grams" for length in lengths]
    return {"headings": ["run", *headings], "rows": rows}


def _value(run: Run, name: str) -> str:
    return _written(run.settings[name]) if name in run.settings else DASH


def _written(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)


# --- Files ----------------------------------------------------------------------------------


def _page(said: Mapping[str, Any], charts: Mapping[str, str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    # Without the XML declaration and document type, which HTML does not allow in its middle.
    drawn = {name: svg[svg.index("<svg") :] for name, svg in charts.items()}
    loss = [(name, axis, drawn[f"loss_{name}"]) for name, (axis, _) in LOSS_OVER.items()]
    return environment.get_template("report.html").render(**said, charts=drawn, loss_charts=loss)


def _markdown(said: Mapping[str, Any]) -> str:
    """The page's tables and charts as Markdown."""
    columns, lines = said["runs"]["columns"], said["runs"]["lines"]
    rows = []
    for line in lines:
        name, *cells = (cell["text"] for cell in line["cells"])
        told = "" if line["status"] == "finished" else f" ({line['status']})"
        rows.append([name + told, *cells])
    parts = [f"# {said['title']}"]
    best = [
        f"- {one['dataset']}: {one['bits_per_byte']} bits per byte, {one['run']}"
        + (f"; {one['order']}-grams: {one['ngram']}" if one["ngram"] else "")
        + (f"; the source's entropy: {one['source']}" if one["source"] else "")
        for one in said["findings"]
    ]
    parts += ["\n".join(best)] if best else []
    parts.append(_markdown_table([c.heading for c in columns], rows))
    parts.append(
        "Losses are of whole splits. Compare them within a dataset only; bits per byte compare\n"
        "across tokenizers. Unrounded figures: [runs.csv](runs.csv); its columns and their units:\n"
        "[columns.csv](columns.csv)."
    )
    if said["notes"]:
        notes = [f"- {run} ({status}): {note}" for run, status, note in said["notes"]]
        parts.append("\n".join(notes))
    for heading, name in (
        ("Seeds: mean and 95 % interval", "seeds"),
        ("Loss by kind of token (share of all loss)", "kinds"),
        ("Copied from the training text", "copying"),
        ("Settings that differ", "settings"),
    ):
        if said[name]["rows"] and len(said[name]["headings"]) > 1:
            parts.append(f"## {heading}")
            parts.append(_markdown_table(said[name]["headings"], said[name]["rows"]))
    if said["samples"]:
        parts.append("## Samples")
    for sample in said["samples"]:
        # Longer than any fence in it.
        fence = "`" * (3 + sample["text"].count("`"))
        parts.append(f"### {sample['run']}\n\n{fence}text\n{sample['text']}\n{fence}")
    if said["shared"]:
        parts.append("## Settings that all share")
        rows = [[name, value] for name, value in said["shared"].items()]
        parts.append(_markdown_table(["setting", "value"], rows))
    for machine, names in said["environments"]:
        parts.append(f"## Trained on: {names}")
        parts.append(_markdown_table(["", "value"], [[name, v] for name, v in machine.items()]))
    parts.append("## Charts")
    parts += [f"![{name.replace('_', ' over ', 1)}]({name}.svg)" for name in CHARTS]
    return "\n\n".join(parts) + "\n"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "--:|" * (len(headings) - 1)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("\n", "\\n").replace("|", "\\|")
