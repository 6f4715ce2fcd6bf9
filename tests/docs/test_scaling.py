"""The arithmetic of docs/SCALING.md: each line has the value that its comment shows."""

import ast
import re
from collections.abc import Iterator

from tests.checkouts import PROJECT
from tests.docs.commands import blocks_of

PAGE = PROJECT / "docs/SCALING.md"
SHOWN = re.compile(r"#\s+(?:about )?([\d,]+(?:\.(\d+))?)(?!\S)")


def results_of(code: str) -> Iterator[tuple[str, str, str]]:
    """Run a page's code; yield each line that shows a value, that value, and the computed one."""
    namespace: dict[str, object] = {}
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        assert statement.end_lineno
        source = ast.unparse(statement)
        if isinstance(statement, ast.Expr):
            value = eval(source, namespace)
        else:
            exec(source, namespace)
            value = None
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                value = namespace[statement.targets[0].id]
        line = lines[statement.end_lineno - 1]
        shown = SHOWN.search(line)
        if shown and isinstance(value, int | float):
            yield line, shown[1], f"{value:,.{len(shown[2] or '')}f}"


def test_each_line_has_the_value_that_it_shows():
    code = "\n".join(block.text for block in blocks_of(PAGE) if block.language == "python")
    results = list(results_of(code))
    assert len(results) >= 20
    assert [(line, computed) for line, shown, computed in results if shown != computed] == []


def test_a_wrong_value_is_found():
    lines = list(results_of("size = 2 * 3_000  # 6,000 bytes\nsize / 7  # 857.2 of them\nsize + 1"))
    assert [(shown, computed) for _, shown, computed in lines] == [
        ("6,000", "6,000"),
        ("857.2", "857.1"),
    ]
