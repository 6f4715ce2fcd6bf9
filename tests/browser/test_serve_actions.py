"""The form of a new run in a browser. Its trainings are processes that only wait."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from nanogpt.files import locks
from nanogpt.project import Project
from nanogpt.web.app import create_app
from nanogpt.web.site import Site
from tests.browser.screens import DESKTOP, TELEPHONE
from tests.browser.serving import serving
from tests.made_runs import make_training
from tests.web.test_actions import CONFIG, TEXT, waiting  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("waiting")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    return Project()


@pytest.fixture(params=[DESKTOP, TELEPHONE], ids=["desktop", "telephone"])
def page(request: pytest.FixtureRequest, browser: Browser, project: Project) -> Iterator[Page]:
    """The form, opened with the token. Afterwards, there must be no messages of the browser."""
    messages: list[str] = []
    site = Site(project, project.results, token="secret", allow_actions=True)
    with serving(create_app(site)) as address:
        context = browser.new_context(viewport=request.param)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(f"{address}/new?token=secret")
        assert page.url == f"{address}/new"
        yield page
        context.close()
    # The browser itself reports an answer about a mistake in the form.
    assert [line for line in messages if "status of 400" not in line] == []


def expect_waiting(page: Page, run: str) -> None:
    """The page of a run that has just been started."""
    page.wait_for_url(f"**/runs/{run}")
    expect(page.get_by_role("heading", level=1)).to_have_text(run)
    expect(page.locator("[data-state] .badge")).to_have_text("waiting")


def upload(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "My novel.txt"
    text.write_text(TEXT)
    page.get_by_label("Text", exact=True).select_option("")
    page.get_by_label("File").set_input_files(text)


def test_a_text_is_uploaded_and_trained(page, project, tmp_path, screenshot):
    upload(page, tmp_path)
    page.get_by_label("Name").fill("mine")
    page.get_by_label("train.max_iters").fill("300")
    page.get_by_text("Sampling", exact=True).click()
    page.get_by_label("sample.top_k").fill("10")
    is_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not is_wide
    screenshot(page, f"new-{page.viewport_size['width']}")
    page.get_by_role("button", name="Train").click()
    expect_waiting(page, "mine")
    written = yaml.safe_load((project.fragments / "mine.yaml").read_text())
    assert written["runs"]["mine"] == {
        "dataset": "My_novel",
        "train": {"max_iters": 300},
        "sample": {"top_k": 10},
    }
    assert (project.texts / "My_novel.txt").read_text() == TEXT


def test_a_text_without_a_usable_name_gets_one(page, project, tmp_path):
    for number, name in enumerate(("text", "text-2")):
        text = tmp_path / "война.txt"
        text.write_text(TEXT)
        page.goto(page.url.partition("/runs")[0].removesuffix("/new") + "/new")
        page.get_by_label("Text", exact=True).select_option("")
        page.get_by_label("File").set_input_files(text)
        page.get_by_label("Name").fill(f"run-{number}")
        page.get_by_role("button", name="Train").click()
        page.wait_for_url(f"**/runs/run-{number}")
        assert (project.texts / f"{name}.txt").read_text() == TEXT


def test_a_mistake_is_shown_at_its_field(page, tmp_path):
    upload(page, tmp_path)
    page.get_by_label("sample.top_p").evaluate("field => { field.value = '7'; }")
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_role("alert")).to_have_text(
        "sample.top_p: should be less than or equal to 1 (found `7.0`)"
    )
    expect(page.get_by_label("sample.top_p")).to_be_focused()
    # The text isn't uploaded again.
    page.get_by_label("sample.top_p").fill("0.7")
    page.get_by_role("button", name="Train").click()
    expect_waiting(page, "My_novel.sample.top_p-0.7")


def test_a_wrong_name_is_shown_at_its_field(page):
    page.get_by_label("Text", exact=True).select_option("play")
    page.get_by_label("Name").fill("my run")
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_role("alert")).to_contain_text("name: invalid name `my run`; use letters")
    expect(page.get_by_label("Name")).to_be_focused()


def test_jobs_are_listed_and_can_be_stopped(page):
    page.get_by_label("Text", exact=True).select_option("play")
    expect(page.get_by_label("train.max_iters")).to_have_attribute("placeholder", "20")
    page.get_by_label("Start from the settings of").fill("one")
    page.get_by_role("button", name="Train").click()
    expect_waiting(page, "one")
    page.goto(page.url.replace("/runs/one", "/new"))
    row = page.get_by_role("row").filter(has_text="one")
    expect(row).to_contain_text("running")
    page.get_by_role("button", name="Stop one").click()
    expect(row).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Continue one")).to_be_visible()


def test_the_page_of_a_run_follows_its_training(page, project):
    page.get_by_label("Text", exact=True).select_option("play")
    page.get_by_label("Name").fill("mine")
    page.get_by_role("button", name="Train").click()
    expect_waiting(page, "mine")
    state = make_training(project.root, "mine")
    with locks.hold(state, "training mine"):
        expect(page.locator("[data-state] .badge")).to_have_text("training")
        expect(page.locator("[data-curves] canvas").first).to_be_visible()
