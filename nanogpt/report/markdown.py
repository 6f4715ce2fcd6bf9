"""report.md: the report page's tables and charts as Markdown."""

from collections.abc import Iterable, Sequence

from nanogpt.report.charts import CHARTS
from nanogpt.report.content import Content, Finding, Sample

FIGURES = """Losses are for whole splits and for the GPT alone, unless a heading says n-grams.
Compare losses only within a dataset. Bits per byte are also comparable across tokenizers. Unrounded
values are in [runs.csv](runs.csv); [columns.csv](columns.csv) explains its columns."""


def render_markdown(content: Content) -> str:
    """Render a report as Markdown; the charts are files in the same directory."""
    parts = [f"# {content.title}"]
    if content.findings:
        parts.append("\n".join(map(_finding, content.findings)))
    parts += [_runs_table(content), FIGURES]
    if content.notes:
        parts.append(
            "\n".join(f"- {note.runs} ({note.status}): {note.text}" for note in content.notes)
        )
    for heading, table in (
        ("Seeds: mean and 95 % interval", content.seeds),
        ("Loss by kind of token (share of the total)", content.kinds),
        ("N-grams copied from the training text", content.copying),
        ("Different settings", content.settings),
    ):
        if table.rows and len(table.headings) > 1:
            parts += [f"## {heading}", _table(table.headings, table.rows)]
    if content.samples:
        parts += ["## Samples", *map(_sample, content.samples)]
    if content.shared:
        parts += [
            "## Shared settings",
            _table(["setting", "value"], content.shared.items()),
        ]
    for machine in content.machines:
        parts += [f"## Trained on: {machine.runs}", _table(["", "value"], machine.values.items())]
    parts.append("## Charts")
    if content.n_drawn < content.n_groups:
        parts.append(
            f"Curves of the best {content.n_drawn} of {content.n_groups} groups, by validation "
            "loss within each dataset."
        )
    parts += [f"![{name.replace('_', ' over ', 1)}]({name}.svg)" for name in CHARTS]
    return "\n\n".join(parts) + "\n"


def _finding(finding: Finding) -> str:
    line = f"- {finding.dataset}: {finding.bits_per_byte} bits per byte, {finding.run}"
    if finding.ngram:
        line += f"; {finding.order}-grams: {finding.ngram}"
    if finding.mixed:
        line += f"; GPT with n-grams: {finding.mixed}, {finding.mixed_run}"
    if finding.source:
        line += f"; the source's entropy: {finding.source}"
    return line


def _runs_table(content: Content) -> str:
    rows = []
    for line in content.runs.lines:
        name, *cells = (cell.text for cell in line.cells)
        status = "" if line.status == "finished" else f" ({line.status})"
        rows.append([name + status, *cells])
    return _table([column.heading for column in content.runs.columns], rows)


def _sample(sample: Sample) -> str:
    fence = "`" * (3 + sample.text.count("`"))  # longer than any fence in the text
    return f"### {sample.run}\n\n{fence}text\n{sample.text}\n{fence}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "--:|" * (len(headings) - 1)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("\n", "\\n").replace("|", "\\|")
