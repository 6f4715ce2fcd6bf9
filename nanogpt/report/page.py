"""The report's files: a page that stands alone, the same as Markdown, a table, and charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import write_text
from nanogpt.report.charts import draw_charts
from nanogpt.report.columns import COLUMNS
from nanogpt.report.compare import table
from nanogpt.report.content import gather
from nanogpt.report.looks import looks
from nanogpt.report.loss_charts import LOSS_OVER
from nanogpt.report.markdown import render_markdown
from nanogpt.report.run import Run


def write_report(runs: Sequence[Run], directory: Path) -> str:
    """Compare runs: index.html, report.md, runs.csv, its dictionary columns.csv, and the charts.

    The same runs give the same bytes. Returns what there is to say of it in one line.

    Errors: UserError for no runs.
    """
    if not runs:
        raise UserError("no runs to report on; name at least one in report.runs, or train one")
    rows = table(runs)
    look = looks(rows)
    charts = draw_charts(runs, look)
    said = gather(runs, rows, look)
    write_text(directory / "index.html", _page(said, charts))
    write_text(directory / "report.md", render_markdown(said))
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
