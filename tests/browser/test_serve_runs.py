"""The pages of runs in a browser: the list, live curves, themes and sizes."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from nanogpt.files import locks
from nanogpt.project import Project
from nanogpt.report.page import write_report
from nanogpt.report.runs import find_runs
from nanogpt.web.app import create_app
from nanogpt.web.site import Site
from tests.browser.screens import DESKTOP, TELEPHONE
from tests.browser.serving import serving
from tests.made_runs import make_run, make_training

SMALL_TELEPHONE = {"width": 360, "height": 740}
ERROR = "2026-11-28 15:57:01,111 ERROR no space left on device\n"
TEXT_CONTRAST = 4.5  # of WCAG 2, level AA
EDGE_CONTRAST = 3.0

# The smallest contrast of the colors of some elements, or of their edges, with what's behind them.
CONTRAST = """([selector, property]) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colors) => {
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrasts = [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility()).map((one) => {
    const behind = [];
    for (let at = one; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const own = getComputedStyle(one)[property];
    const [a, b] = [luminance(paint(behind)), luminance(paint([...behind, own]))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
  return Math.min(...contrasts);
}"""  # noqa: E501

# Whether the canvas of a chart has a pixel of a color of the page.
HAS_COLOR = """([selector, name]) => {
  const probe = document.createElement("span");
  probe.className = name;
  document.body.append(probe);
  const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
  probe.remove();
  const canvas = document.querySelector(`${selector} canvas`);
  if (!canvas) return false;
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 250 && wanted.every((c, k) => Math.abs(data[i + k] - c) < 8)) return true;
  }
  return false;
}"""  # noqa: E501


def metrics_line(step: int, loss: float) -> str:
    line = {"step": step, "tokens": step * 10, "loss": loss, "train_loss": loss, "val_loss": loss}
    line |= {"learning_rate": 1e-3, "tokens_per_second": 1000.0, "seconds": step / 2}
    return json.dumps(line) + "\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with finished runs, one that failed and one that's being trained."""
    for i, name in enumerate(("baseline", "deep.model-midi", "a-long-name-of-a-run.learning_rate")):
        make_run(tmp_path, name, val_loss=1 + i / 5, train={"learning_rate": 0.01 / (i + 1)})
    make_run(tmp_path, "run-10", "novel", sample="To <b>be</b>")
    make_run(tmp_path, "run-9", "novel", diverges_at=200)
    failed = tmp_path / "results/failed"
    failed.mkdir()
    (failed / "train.log").write_text(ERROR)
    state = make_training(tmp_path, "growing", train={"max_iters": 1000})
    (state / "metrics.jsonl").write_text("".join(metrics_line(s, 4 - s / 200) for s in (0, 50)))
    return Project(tmp_path)


@pytest.fixture
def address(project: Project) -> Iterator[str]:
    state = next(project.states.iterdir())
    site = Site(project, project.results)
    with locks.hold(state, "training growing"), serving(create_app(site)) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """A function that opens a page of the server.

    Afterwards, there must be no messages of the browser, and no requests to other servers.
    """
    contexts, requests, messages = [], [], []

    def open_one(path: str, scheme: str = "light", viewport: dict = DESKTOP, **more) -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(f"{address}{path}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(f"{address}/")] == []


def names(page: Page) -> list[str]:
    rows = page.locator("table.runs tbody tr:visible")
    return rows.evaluate_all("rows => rows.map((row) => row.dataset.name)")


def wait_for_lines(page: Page, text: str) -> None:
    """Wait until a text about the curves is on the page."""
    expect(page.locator("[data-summary]")).to_contain_text(text)


# --- The list ---------------------------------------------------------------------------------


def test_the_list_filters_as_you_type(open_page) -> None:
    page = open_page("/")
    assert len(names(page)) == 7
    page.get_by_role("searchbox").type("novel RUN")
    assert names(page) == ["run-9", "run-10"]
    expect(page.locator("[data-shown]")).to_have_text("2 of 7 runs")
    page.locator("select[name=status]").select_option("diverged")
    assert names(page) == ["run-9"]
    page.reload()  # the address has the filter
    assert names(page) == ["run-9"]
    page.locator("select[name=status]").select_option("")
    page.get_by_role("searchbox").fill("")
    expect(page.locator("table.runs tbody tr:visible")).to_have_count(7)


def test_the_list_sorts_by_a_heading(open_page) -> None:
    page = open_page("/")
    page.get_by_role("link", name="Best val. loss").click()
    ascending = names(page)
    assert ascending[-1] == "failed"
    assert ascending.index("baseline") < ascending.index("deep.model-midi")
    page.get_by_role("link", name="Best val. loss").click()
    assert names(page) == [*reversed(ascending[:-1]), "failed"]
    heading = page.locator("th[data-column=loss]")
    expect(heading).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="Run", exact=True).click()
    assert names(page)[-2:] == ["run-9", "run-10"]


def test_the_list_follows_its_runs(open_page, project) -> None:
    page = open_page("/")
    row = page.locator("tr[data-name=growing]")
    expect(row).to_contain_text("50 of 1,000")
    box = row.get_by_role("checkbox")
    box.check()
    with open(next(project.states.iterdir()) / "metrics.jsonl", "a") as file:
        file.write(metrics_line(100, 3.0))
    make_run(project.root, "new")
    shutil.rmtree(project.results / "run-9")
    expect(row).to_contain_text("100 of 1,000", timeout=10_000)
    expect(page.locator("tr[data-name=new]")).to_be_visible(timeout=10_000)
    expect(page.locator("tr[data-name=run-9]")).to_have_count(0)
    expect(box).to_be_checked()


def test_chosen_runs_are_compared(open_page, screenshot) -> None:
    page = open_page("/")
    button = page.get_by_role("button", name="Compare")
    expect(button).to_be_disabled()
    for name in ("baseline", "deep.model-midi"):
        page.get_by_label(f"Choose {name}").check()
    button.click()
    assert page.url.endswith("/compare?run=baseline&run=deep.model-midi")
    wait_for_lines(page, "deep.model-midi: validation loss 1.2183")
    differing = page.get_by_role("region", name="Settings that differ")
    expect(differing.locator("tbody tr")).to_have_count(1)
    expect(differing).to_contain_text("train.learning_rate")
    for look in ("look-0", "look-1"):
        assert page.evaluate(HAS_COLOR, ["[data-chart=loss]", look])
        assert page.evaluate(HAS_COLOR, ["[data-positions]", look])
    assert not page.evaluate(HAS_COLOR, ["[data-chart=loss]", "look-2"])
    screenshot(page, "serve-compare")
    page.get_by_label("Add a run").fill("run-10")
    page.get_by_role("button", name="Add").click()
    wait_for_lines(page, "run-10: validation loss")
    assert page.evaluate(HAS_COLOR, ["[data-chart=loss]", "look-2"])
    page.get_by_label("Remove baseline").click()
    expect(page.locator("[data-run=baseline]")).to_have_count(0)


def test_without_javascript_there_are_tables(open_page) -> None:
    page = open_page("/", java_script_enabled=False)
    page.get_by_role("searchbox").fill("novel")
    page.get_by_role("button", name="Filter").click()
    assert page.locator("table.runs tbody tr").count() == 2
    page.get_by_role("link", name="run-10").click()
    expect(page.locator("pre").first).to_contain_text("To <b>be</b>")
    page.get_by_text("Losses during training").click()
    expect(page.get_by_role("region", name="Losses during training")).to_contain_text("400")


# --- A run ------------------------------------------------------------------------------------


def test_a_curve_grows_while_its_run_trains(open_page, project, screenshot) -> None:
    page = open_page("/runs/growing")
    wait_for_lines(page, "validation loss 3.7500 at step 50.")
    chart = page.locator("[data-chart=loss] canvas")
    before = chart.evaluate("canvas => canvas.toDataURL()")
    with open(next(project.states.iterdir()) / "metrics.jsonl", "a") as file:
        file.write("".join(metrics_line(s, 4 - s / 200) for s in (100, 150)) + '{"step": 2')
    wait_for_lines(page, "validation loss 3.2500 at step 150.")
    assert chart.evaluate("canvas => canvas.toDataURL()") != before
    expect(page.locator("[data-state]")).to_contain_text("150 of 1,000", timeout=10_000)
    expect(page.locator("[data-state]")).to_contain_text("7 min 5 s left")
    expect(page.locator(".numbers")).to_contain_text("150", timeout=20_000)
    screenshot(page, "serve-growing")
    # Points were marked while there were only two.
    grown = chart.evaluate("canvas => canvas.toDataURL()")
    page.reload()
    wait_for_lines(page, "validation loss 3.2500 at step 150.")
    assert chart.evaluate("canvas => canvas.toDataURL()") == grown


def test_a_page_shows_that_its_run_has_finished(open_page, project) -> None:
    page = open_page("/runs/growing")
    expect(page.locator("[data-state] .badge")).to_have_text("training")
    expect(page.locator("#samples")).to_have_count(0)
    make_run(project.root, "growing", sample="All the world's a stage")
    expect(page.locator("[data-state] .badge")).to_have_text("finished", timeout=10_000)
    expect(page.locator("[data-announcer]")).to_have_text("growing: finished")
    expect(page.locator("[aria-label=Samples]")).to_contain_text("All the world's a stage")
    wait_for_lines(page, "at step 400.")


def test_the_charts_have_axes_and_smoothing(open_page) -> None:
    page = open_page("/runs/baseline")
    wait_for_lines(page, "at step 400.")
    chart = page.locator("[data-chart=loss] canvas")
    pictures = [chart.evaluate("canvas => canvas.toDataURL()")]

    def is_new() -> bool:
        pictures.append(page.locator("[data-chart=loss] canvas").evaluate("c => c.toDataURL()"))
        return pictures[-1] not in pictures[:-1]

    assert page.evaluate(HAS_COLOR, ["[data-chart=loss]", "look-0"])
    for label in ("log x", "log y"):
        page.get_by_label(label).check()
        assert is_new()
    page.get_by_label("Over").select_option("seconds")
    assert is_new()
    page.get_by_label("Smoothing").fill("0.95")
    assert is_new()
    page.get_by_label("validation", exact=True).uncheck()
    assert is_new()
    assert not page.evaluate(HAS_COLOR, ["[data-chart=loss]", "look-0"])


def test_a_chart_zooms_and_zooms_out(open_page) -> None:
    page = open_page("/runs/baseline")
    wait_for_lines(page, "at step 400.")
    button = page.get_by_role("button", name="Zoom out")
    expect(button).to_be_hidden()
    box = page.locator("[data-chart=loss] .u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + 100, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 60)
    page.mouse.up()
    button.click()
    expect(button).to_be_hidden()


def test_the_only_validation_loss_is_marked(open_page, project) -> None:
    losses = [metrics_line(step, 3.5) for step in (0, 5, 10, 15)]
    batches = [line.replace('"val_loss": 3.5', '"val_loss": null') for line in losses[1:]]
    (project.results / "baseline/metrics.jsonl").write_text("".join([losses[0], *batches]))
    page = open_page("/runs/baseline")
    wait_for_lines(page, "validation loss 3.5000 at step 0")
    page.get_by_label("training", exact=True).uncheck()  # it has the same value
    assert page.evaluate(HAS_COLOR, ["[data-chart=loss]", "look-0"])


def test_a_failed_run_says_why(open_page, screenshot) -> None:
    page = open_page("/runs/failed", viewport=TELEPHONE)
    expect(page.locator(".note-of-run")).to_have_text("no space left on device")
    expect(page.get_by_text("There's nothing to draw yet")).to_be_visible()
    expect(page.locator("[data-chart=loss]")).to_be_hidden()
    screenshot(page, "serve-failed-telephone")


def test_the_report_works_in_its_sandbox(open_page, project) -> None:
    write_report(find_runs(project.results, project), project.results / "report/now")
    page = open_page("/")
    page.get_by_role("link", name="Report on all runs").click()
    page.get_by_role("button", name="parameters").click()
    expect(page.locator("th[data-column=parameters]")).to_have_attribute("aria-sort", "ascending")
    assert page.evaluate("origin") == "null"


# --- Look -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/runs/baseline", "/compare?run=baseline&run=run-9"])
@pytest.mark.parametrize("viewport", [TELEPHONE, SMALL_TELEPHONE], ids=["390", "360"])
def test_pages_fit_a_telephone(open_page, screenshot, path, viewport) -> None:
    page = open_page(path, viewport=viewport)
    if path != "/":
        wait_for_lines(page, "at step")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    name = re.sub(r"\W+", "-", path).strip("-") or "runs"
    screenshot(page, f"serve-{name}-{viewport['width']}")


@pytest.mark.parametrize("path", ["/", "/runs/baseline", "/runs/failed"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_have_enough_contrast(open_page, screenshot, path, scheme) -> None:
    page = open_page(path, scheme=scheme)
    if path == "/runs/baseline":
        wait_for_lines(page, "at step")
    for selector in ("a", "p", ".badge", "td", "th", "dt", "label", "button:enabled"):
        if page.locator(selector).count():
            contrast = page.evaluate(CONTRAST, [selector, "color"])
            assert contrast >= TEXT_CONTRAST, selector
    for selector in ("input", "select", "button"):
        contrast = page.evaluate(CONTRAST, [f"{selector}:enabled", "borderTopColor"])
        assert contrast >= EDGE_CONTRAST, selector
    name = re.sub(r"\W+", "-", path).strip("-") or "runs"
    screenshot(page, f"serve-{name}-{scheme}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_have_enough_contrast(open_page, scheme) -> None:
    page = open_page("/runs/baseline", scheme=scheme)
    page.evaluate(
        """() => { for (let i = 0; i < 12; i++) {
          const probe = document.createElement("span");
          probe.className = `probe look-${i}`;
          probe.textContent = "x";
          document.body.append(probe);
        } }"""
    )
    assert page.evaluate(CONTRAST, [".probe", "color"]) >= EDGE_CONTRAST


def test_the_theme_is_remembered_and_redraws_charts(open_page) -> None:
    page = open_page("/runs/baseline")
    wait_for_lines(page, "at step 400.")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    assert page.evaluate(HAS_COLOR, ["[data-chart=loss]", "look-0"])
    page.goto(page.url.removesuffix("/runs/baseline") + "/")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_list_works_by_keyboard(open_page) -> None:
    page = open_page("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("link", name="baseline").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("baseline")
