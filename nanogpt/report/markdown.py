"""report.md: the page's tables and charts as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanogpt.report.charts import CHARTS


def render_markdown(said: Mapping[str, Any]) -> str:
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
