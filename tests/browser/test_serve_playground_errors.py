"""What the playground shows when the API refuses or fails. Its answers are made up."""

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from nanogpt.config.schema import SampleSettings
from nanogpt.project import Project
from nanogpt.web.app import create_app
from nanogpt.web.site import Site
from tests.browser.serving import serving


def event(text: str, offset: int, finish: str | None = None) -> str:
    logprobs = {
        "tokens": [text],
        "token_logprobs": [-0.1],
        "top_logprobs": [{text: -0.1}],
        "text_offset": [offset],
    }
    choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


BEGUN = event("a", 0) + event("b", 1)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    project = Project(tmp_path_factory.mktemp("errors"))
    project.results.mkdir()
    with serving(create_app(Site(project, project.results))) as address:
        yield address


@pytest.fixture
def generate(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """A function that presses Generate on a page whose API gives an answer."""
    context = browser.new_context()
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))

    def press(answer: Callable[[Route], None], models: tuple[str, ...] = ("one", "two")) -> Page:
        data = [{"id": name, "object": "model"} for name in models]
        settings = {"settings": SampleSettings().model_dump()}
        page.route("**/v1/models", lambda route: route.fulfill(json={"data": data}))
        page.route("**/v1/models/*", lambda route: route.fulfill(json=settings))
        page.route("**/v1/completions", answer)
        page.goto(f"{address}/playground")
        page.locator("form[data-ready]").wait_for()
        page.get_by_role("button", name="Generate").click()
        return page

    yield press
    context.close()
    assert faults == []


def stream(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(content_type="text/event-stream", body=body)


def refuse(status: int, **headers: str) -> Callable[[Route], None]:
    error = {"message": "temperature: <b>wrong</b>", "type": "x", "param": None, "code": None}
    return lambda route: route.fulfill(status=status, json={"error": error}, headers=headers)


def test_a_refusal_is_shown_in_one_line(generate) -> None:
    page = generate(refuse(400))
    expect(page.get_by_role("alert").last).to_have_text("temperature: <b>wrong</b>")
    expect(page.locator("[data-status]")).to_have_text("failed")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()


def test_a_busy_server_says_how_long_to_wait(generate) -> None:
    page = generate(refuse(429, **{"Retry-After": "3"}))
    expect(page.locator("#error")).to_have_text("the server is busy; wait 3 s, then try again")


def test_an_answer_that_is_not_json_has_its_status(generate) -> None:
    page = generate(lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    expect(page.locator("#error")).to_have_text("the server answered 502")


def test_a_lost_connection_keeps_the_text(generate) -> None:
    page = generate(stream(BEGUN))
    lost = "the connection to the server was lost; the text so far is kept"
    expect(page.locator("#error")).to_have_text(lost)
    expect(page.locator("[data-text]")).to_have_text("ab")


def test_no_connection(generate) -> None:
    page = generate(lambda route: route.abort())
    expect(page.locator("#error")).to_have_text("the connection to the server was lost")


def test_an_error_in_the_stream_keeps_the_text(generate) -> None:
    error = json.dumps({"error": {"message": "the server is stopping; try again later"}})
    page = generate(stream(f"{BEGUN}data: {error}\n\n"))
    expect(page.locator("#error")).to_have_text("the server is stopping; try again later")
    expect(page.locator("[data-text]")).to_have_text("ab")


def test_each_of_two_models_has_its_error(generate) -> None:
    def answer(route: Route) -> None:
        name = json.loads(route.request.post_data)["model"]
        if name == "one":
            refuse(400)(route)
        else:
            stream(event("x", 0, "length") + "data: [DONE]\n\n")(route)

    page = generate(answer)
    page.get_by_label("Compare with").select_option("two")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#error")).to_have_text("one: temperature: <b>wrong</b>")
    expect(page.locator("[data-text]").last).to_have_text("x")


def test_an_error_goes_away_with_the_next_attempt(generate) -> None:
    page = generate(refuse(400))
    expect(page.locator("#error")).not_to_be_empty()
    page.unroute("**/v1/completions")
    page.route("**/v1/completions", stream(event("x", 0, "length") + "data: [DONE]\n\n"))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("[data-text]")).to_have_text("x")
    expect(page.locator("#error")).to_be_empty()


def test_a_project_without_models_says_what_to_do(generate) -> None:
    page = generate(refuse(400), ())
    text = "no trained models yet; train one with `nanogpt train`"
    expect(page.locator("#error")).to_have_text(text)
    expect(page.locator(".output")).to_have_count(0)
