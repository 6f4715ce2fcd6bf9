"""Draw docs/report.png, the picture of the README, from results/report/index.html.

    python docs/picture.py [PAGE] [PICTURE]

Needs Chromium. The picture is the top of the page, 1,280 points wide.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 2010  # points


def main(page_file: str = "results/report/index.html", picture: str = "docs/report.png") -> None:
    """Open the page in a headless browser and take a picture of its top."""
    if not Path(page_file).exists():
        sys.exit(f"error: {page_file}: no such file; make the report first: snakemake --cores all")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(Path(page_file).resolve().as_uri())
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
