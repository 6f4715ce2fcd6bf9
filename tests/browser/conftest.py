"""A headless Chromium and a report to open in it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from nanogpt.project import Project
from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs
from nanogpt.web.app import create_app
from nanogpt.web.site import Site
from tests.browser.screens import DESKTOP
from tests.browser.serving import serving
from tests.made_runs import make_run, write_ngram

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)

expect.set_options(timeout=30_000)  # milliseconds, since other suites may use the machine too


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium isn't installed; install the package chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a sweep of three sizes and three seeds, a text in tokens, and a diverged run."""
    root = tmp_path_factory.mktemp("runs")
    write_ngram(root, "play", [1.2, 0.9])
    runs = [
        make_run(
            root,
            f"sizes.model-{name}.seed-{seed}",
            val_loss=0.9 / n_layer**0.3 + seed / 100,
            model={"n_layer": n_layer},
            train={"seed": seed},
            bench=seed == 1,
        )
        for name, n_layer in (("micro", 1), ("mini", 2), ("midi", 4))
        for seed in (1, 2, 3)
    ]
    for i in (2, 10):
        runs.append(make_run(root, f"run-{i}", "prose", 1.5 + i / 7, train={"beta1": i / 20}))
    for i in range(4):
        runs.append(make_run(root, f"old-{i}", "prose", 3.0 + i, train={"beta2": i / 20}))
    runs.append(make_run(root, "bad", "prose", 9.0, diverges_at=200, model={"n_layer": 3}))
    write_report(read_runs(runs), root / "report")
    return root / "report"


@pytest.fixture(scope="session")
def many_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on 60 groups of runs on each of two datasets, with losses in the order of names."""
    root = tmp_path_factory.mktemp("many")
    runs = [
        make_run(root, f"{dataset}.{i}", dataset, 1 + i / 100, train={"beta1": i / 100}, deep=False)
        for dataset in ("play", "prose")
        for i in range(60)
    ]
    write_report(read_runs(runs), root / "report")
    return root / "report"


@pytest.fixture
def open_page(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """A function that opens the report. Afterwards, there must be no network requests or errors."""
    with opener(browser, report) as open_report:
        yield open_report


@pytest.fixture
def open_many(browser: Browser, many_runs: Path) -> Iterator[Callable[..., Page]]:
    """The same for the report on many runs."""
    with opener(browser, many_runs) as open_report:
        yield open_report


@contextmanager
def opener(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """A function that opens a report, and a check of requests and errors afterwards."""
    contexts, requests, messages = [], [], []

    def open_report(scheme: str = "light", viewport: dict[str, int] = DESKTOP) -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto((report / "index.html").as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert messages == []
    others = [url for url in requests if not url.startswith(("data:", report.as_uri()))]
    assert others == []


@pytest.fixture
def screenshot() -> Callable[[Page, str], None]:
    """A function that saves a picture of the page to the directory NANOGPT_SCREENSHOTS, if set."""

    def keep(page: Page, name: str) -> None:
        directory = os.environ.get("NANOGPT_SCREENSHOTS")
        if directory:
            page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)

    return keep


@pytest.fixture(scope="session")
def modules(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a server without runs, from which tests import the site's JavaScript modules."""
    project = Project(tmp_path_factory.mktemp("modules"))
    project.results.mkdir()
    with serving(create_app(Site(project, project.results))) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{address}/healthz")
        yield page
        context.close()
