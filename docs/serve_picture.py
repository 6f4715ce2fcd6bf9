"""Draw the pictures of SERVE.md from the results of `snakemake --cores all`.

    python docs/serve_picture.py [PROJECT] [DIRECTORY]

Needs Chromium. It starts a server on a free port, and writes serve.png (a run's page),
serve-playground.png (in dark) and serve-telephone.png into the directory, docs/ by default.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

RUN, OTHER = "sizes.model-midi.seed-1", "sizes.model-micro.seed-1"
PROMPT = "Scene: a damp Palace, at night.\n"
WAIT = 60_000  # milliseconds


@contextmanager
def serving(project: Path) -> Iterator[str]:
    """Run a server, and yield the address that it prints."""
    command = [sys.executable, "-m", "nanogpt", "serve", "--port=0", "--allow-actions"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            if not address:
                sys.exit("error: the server didn't start")
            yield address
        finally:
            server.terminate()


def open_page(browser: Browser, address: str, path: str, width: int, scheme: str = "light") -> Page:
    """Open a page of the server, with its token, in a window of this width in points."""
    page = browser.new_page(viewport={"width": width, "height": 1200}, color_scheme=scheme)
    page.goto(address)
    place = urlsplit(address)
    page.goto(f"{place.scheme}://{place.netloc}{path}")
    return page


def draw(page: Page, last: str, picture: Path) -> None:
    """Draw the top of a page, down to an element."""
    box = page.locator(last).first.bounding_box()
    width = page.viewport_size["width"]
    end = box["y"] + box["height"] + page.evaluate("scrollY") + 4
    page.screenshot(
        path=picture, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": end}
    )


def draw_run(page: Page, last: str, picture: Path) -> None:
    """Draw the top of a run's page, with its curves."""
    page.locator("[data-summary]", has_text="at step").wait_for(state="attached", timeout=WAIT)
    draw(page, last, picture)


def draw_playground(page: Page, picture: Path) -> None:
    """Draw the playground with two models, and the alternatives of a token."""
    page.locator("form[data-ready]").wait_for()
    page.get_by_label("Compare with").select_option(OTHER)
    page.locator("#prompt").fill(PROMPT)
    page.locator("#max_tokens").fill("300")
    page.get_by_label("Color tokens").check()
    page.get_by_role("button", name="Generate").click()
    page.locator("#generate:enabled").wait_for(timeout=WAIT)
    page.locator("[data-text]").first.locator(".level-2").nth(1).hover()
    draw(page, "#tip", picture)


def main(project: str = ".", directory: str = "docs") -> None:
    """Draw all pictures."""
    missing = [
        run
        for run in (RUN, OTHER)
        if not (Path(project) / "results" / run / "samples.txt").exists()
    ]
    if missing:
        sys.exit(f"error: no results of {', '.join(missing)}; first run snakemake --cores all")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    pictures = Path(directory)
    with serving(Path(project)) as address, sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        run, playground = f"/runs/{RUN}", f"/playground#model={RUN}"
        draw_run(open_page(browser, address, run, 1280), ".curves .pair", pictures / "serve.png")
        draw_playground(
            open_page(browser, address, playground, 1280, "dark"), pictures / "serve-playground.png"
        )
        draw_run(
            open_page(browser, address, run, 390),
            "[data-chart=loss]",
            pictures / "serve-telephone.png",
        )
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
