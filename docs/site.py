"""Hooks of `mkdocs build`: show the same pages as the repository does, without copies of them.

README.md becomes the first page, and the other pages of the repository's root join those of docs/.
A link to any other file of the repository, such as a profile, leads to that file in the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
LINK = re.compile(r"(\]\()([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and each file outside docs/ that a page links to."""
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    sources = [Path(file.abs_src_path) for file in files.documentation_pages()]
    for source in sources:
        for _, target in LINK.findall(source.read_text(encoding="utf-8")):
            path = source.parent / target
            place = _place(path)
            if place and place not in files.src_uris and path.is_file():
                files.append(File.generated(config, place, abs_src_path=str(path.resolve())))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point each link of a page at the place that its target has in the site."""
    source = Path(page.file.abs_src_path)
    up = "../" * page.file.src_uri.count("/")

    def moved(match: re.Match[str]) -> str:
        place = _place(source.parent / match[2])
        return f"{match[1]}{up}{place}" if place else match[0]

    return LINK.sub(moved, markdown)


def _place(path: Path) -> str | None:
    """Return where the site has a file of the repository, or None for what isn't one."""
    path = path.resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        return None
    relative = path.relative_to(ROOT).as_posix()
    if relative in ROOT_PAGES:
        return ROOT_PAGES[relative]
    if relative.startswith("docs/"):
        return relative.removeprefix("docs/")
    # A page would need a heading in the navigation; as text, every browser shows it.
    return f"files/{relative}.txt"
