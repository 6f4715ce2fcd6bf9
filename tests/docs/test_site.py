"""`make docs`: the site has all pages, and loads nothing from other hosts."""

import re
import subprocess
import sys
from pathlib import Path

from tests.checkouts import PROJECT

LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|<link[^>]*stylesheet[^>]*//"
)


def test_site_builds_strictly_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    """A broken link or anchor between pages fails the build."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    ended = subprocess.run(build, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    pages = list(tmp_path.rglob("*.html"))
    shown = {path.stem for path in pages}
    assert {"index", "DATA", "CHANGELOG", "SECURITY"} <= shown
    assert [path.name for path in pages if LOADED.search(path.read_text(encoding="utf-8"))] == []
    assert (tmp_path / "files/profiles/slurm/config.yaml.txt").is_file()
