"""The report's files: a self-contained web page, the same in Markdown, a table, and charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from nanogpt.errors import UserError, plural
from nanogpt.files.atomic import write_text
from nanogpt.report.charts import draw_charts
from nanogpt.report.columns import COLUMNS
from nanogpt.report.compare import table
from nanogpt.report.content import Content, gather_content
from nanogpt.report.drawing import stand_alone
from nanogpt.report.looks import choose_looks
from nanogpt.report.loss_charts import LOSS_OVER
from nanogpt.report.markdown import render_markdown
from nanogpt.report.run import Run

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = "report.html"
MOST_ROWS = 100  # rows of the table at first, until the reader chooses more


def write_report(runs: Sequence[Run], directory: Path) -> str:
    """Write index.html, report.md, runs.csv, columns.csv (which explains it), and the charts.

    The same runs give the same bytes. Returns a one-line summary.

    Errors: UserError if there are no runs, or the page's template isn't installed.
    """
    if not runs:
        raise UserError("no runs to report on; list at least one in `report.runs`, or train one")
    template = _load_template()
    rows = table(runs)
    looks = choose_looks(rows)
    charts = draw_charts(runs, looks)
    content = gather_content(runs, rows, looks)
    write_text(directory / "index.html", _render_page(template, content, charts))
    write_text(directory / "report.md", render_markdown(content))
    _write_csv(directory / "runs.csv", rows)
    dictionary = [(column.name, column.unit, column.meaning) for column in COLUMNS]
    columns = pd.DataFrame(dictionary, columns=["column", "unit", "meaning"])
    _write_csv(directory / "columns.csv", columns)
    for name, svg in charts.items():
        write_text(directory / f"{name}.svg", stand_alone(svg))
    best = (
        f"at best {one.bits_per_byte} bits per byte on {one.dataset}" for one in content.findings
    )
    return "; ".join([plural(len(runs), "run"), *best])


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    try:
        return environment.get_template(TEMPLATE)
    except jinja2.TemplateNotFound:
        raise UserError(
            f"{TEMPLATES}: `{TEMPLATE}` is missing from this installation; reinstall nanogpt"
        ) from None


def _render_page(template: jinja2.Template, content: Content, charts: Mapping[str, str]) -> str:
    # HTML doesn't allow an XML declaration and document type in the middle of a page.
    drawn = {name: svg[svg.index("<svg") :] for name, svg in charts.items()}
    loss_charts = [(name, axis, drawn[f"loss_{name}"]) for name, (axis, _) in LOSS_OVER.items()]
    return template.render(
        report=content,
        charts=drawn,
        loss_charts=loss_charts,
        dictionary=COLUMNS,
        most_rows=MOST_ROWS,
    )
