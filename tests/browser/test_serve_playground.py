"""The playground in a browser, with models in float64, so that rounding changes no text."""

import ast
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI
from playwright.sync_api import Browser, Locator, Page, expect

from nanogpt.config.schema import ModelSettings, SampleSettings
from nanogpt.data.tokenizers import ByteTokenizer
from nanogpt.devices import resolve
from nanogpt.inference.engine import Engine, Prompt, generate
from nanogpt.inference.sampling import stream
from nanogpt.model.checkpoints import Checkpoint, load_model
from nanogpt.model.directories import save_model
from nanogpt.model.gpt import GPT
from nanogpt.project import Project
from nanogpt.web.app import create_app
from nanogpt.web.site import Site
from tests.browser.screens import DESKTOP, TELEPHONE
from tests.browser.serving import serving
from tests.inference.models import TOKENIZER, make_model
from tests.made_runs import metrics_text, write_manifest

OWN = {"max_new_tokens": 60, "temperature": 0.7, "top_k": 20, "seed": 42, "stop": ["\n\n", "\\"]}
SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """Runs `fables` (with its own settings) and `novel` in characters, and `raw` in bytes."""
    project = Project(tmp_path_factory.mktemp("playground"))
    for seed, name in enumerate(("fables", "novel")):
        model = make_model(64, seed=seed)
        directory = project.results / name / "model"
        directory.mkdir(parents=True)
        save_model(directory, model.state_dict(), model.settings, TOKENIZER)
    settings = SampleSettings(**OWN).model_dump()
    write_manifest(project.results / "fables", "sample", {}, {"sample": settings}, {})
    torch.manual_seed(0)
    raw = GPT(ModelSettings(n_layer=1, n_head=2, n_embd=16, block_size=64), 256)
    (project.results / "raw/model").mkdir(parents=True)
    save_model(project.results / "raw/model", raw.state_dict(), raw.settings, ByteTokenizer())
    (project.results / "raw/metrics.jsonl").write_text(metrics_text(0.6))
    (project.results / "datasets/tale").mkdir(parents=True)
    ByteTokenizer().save(project.results / "datasets/tale/tokenizer.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanogpt.web.models.load_model", load_double)
        patch.setattr("nanogpt.web.models.resolve", resolve_double)
        yield create_app(Site(project, project.results))


@pytest.fixture
def public_address(app: FastAPI) -> Iterator[str]:
    """The same runs on a server that everybody can reach."""
    site = replace(app.state.site, hosts=frozenset(), token="open-sesame", is_public=True)
    with serving(create_app(site)) as address:
        yield address


def load_double(directory: Path, device: str = "cpu") -> Checkpoint:
    checkpoint = load_model(directory, device)
    checkpoint.model.double()
    return checkpoint


def resolve_double(settings: SampleSettings) -> SampleSettings:
    return resolve(settings).model_copy(update={"dtype": "float64"})


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with serving(app) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """A function that opens the playground. Afterwards, there must be no errors and no requests
    to elsewhere."""
    contexts, requests, messages = [], [], []

    def open_playground(
        fragment: str = "", scheme: str = "light", viewport: dict[str, int] = DESKTOP, **more: str
    ) -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **more)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
        page.goto(f"{address}/playground{fragment}")
        page.locator("form[data-ready]").wait_for()
        return page

    yield open_playground
    for context in contexts:
        context.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(f"{address}/")] == []


def sampled(app: FastAPI, name: str, prompt: str, **settings: object) -> str:
    """Return what `nanogpt sample` prints for a prompt, without the prompt and the last line
    feed."""
    checkpoint = load_double(app.state.site.results / name / "model")
    usual = SampleSettings(start=prompt, num_samples=1, device="cpu", **settings)
    text = "".join(stream(checkpoint, usual.model_copy(update={"dtype": "float64"})))
    return text.removeprefix(prompt).removesuffix("\n")


def fill(page: Page, **values: object) -> None:
    for name, value in values.items():
        page.locator(f"#{name}").fill(str(value))


def finish(page: Page) -> None:
    """Generate, and wait for the end."""
    page.get_by_role("button", name="Generate").click()
    page.locator("#generate:enabled").wait_for(timeout=60_000)


def text_of(page: Page, column: int = 0) -> str:
    """Return the generated text, without the prompt."""
    pieces = page.locator("[data-text]").nth(column).locator("span:not(.begin)")
    return "".join(pieces.all_text_contents())


def tokens_of(page: Page) -> Locator:
    return page.locator("[data-text] span:not(.begin)")


def copied(page: Page, kind: str) -> str:
    """Press a button that copies, and return what it copied."""
    page.get_by_role("button", name=kind).click()
    return page.locator("#copy").text_content()


def test_a_run_presets_its_own_settings(open_page) -> None:
    page = open_page()
    expect(page.get_by_label("Model", exact=True)).to_have_value("fables")
    expect(page.get_by_label("Length")).to_have_value("60")
    expect(page.get_by_label("Temperature")).to_have_value("0.7")
    expect(page.get_by_label("Top-k")).to_have_value("20")
    expect(page.get_by_label("Seed")).to_have_value("42")
    expect(page.get_by_label("Stop strings")).to_have_value("\\n\\n\n\\\\")
    page.get_by_label("Model", exact=True).select_option("novel")
    expect(page.get_by_label("Length")).to_have_value("500")
    expect(page.get_by_label("Seed")).to_have_value("42")
    fill(page, temperature=0.3)
    page.get_by_label("Model", exact=True).select_option("fables")
    page.wait_for_timeout(200)
    expect(page.get_by_label("Temperature")).to_have_value("0.3")
    page.get_by_role("button", name="Settings of the run").click()
    expect(page.get_by_label("Temperature")).to_have_value("0.7")


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"seed": 2, "temperature": 0, "top_k": 0},
        {"seed": 3, "top_k": 5, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3},
        {"seed": 4, "stop": ["e", "a "], "temperature": 1.5, "top_k": 0},
    ],
    ids=["plain", "greedy", "all", "stop"],
)
@pytest.mark.parametrize("name", ["fables", "raw"])
def test_the_text_is_that_of_nanogpt_sample(app, open_page, name: str, settings: dict) -> None:
    page = open_page()
    page.get_by_label("Model", exact=True).select_option(name)
    usual = {"temperature": 0.8, "top_k": 200, "top_p": 1, "min_p": 0, "repetition_penalty": 1}
    given = {**usual, **settings}
    stop = given.pop("stop", [])
    fill(page, prompt="once upon\na time", max_tokens=150, stop="\n".join(stop), **given)
    finish(page)
    wanted = sampled(app, name, "once upon\na time", max_new_tokens=150, stop=stop, **given)
    assert text_of(page) == wanted
    assert page.locator(".begin").text_content() == "once upon\na time"


def test_unknown_characters_can_be_left_out(open_page) -> None:
    page = open_page("#model=fables&unknown=skip")
    expect(page.get_by_label("Unknown characters")).to_have_value("skip")
    with page.expect_request("**/v1/completions") as made:
        finish(page)
    assert made.value.post_data_json["unknown"] == "skip"


def test_without_a_prompt_a_text_begins(app, open_page) -> None:
    page = open_page()
    fill(page, prompt="", max_tokens=30, stop="")
    finish(page)
    wanted = sampled(app, "fables", "", **{**OWN, "max_new_tokens": 30, "stop": []})
    assert text_of(page) == wanted.removeprefix("\n")


def test_a_new_seed_gives_another_text(open_page) -> None:
    page = open_page()
    fill(page, prompt="once", max_tokens=50, stop="")
    finish(page)
    before = text_of(page)
    page.get_by_role("button", name="New").click()
    assert page.get_by_label("Seed").input_value() != "42"
    finish(page)
    assert text_of(page) != before


def test_stop_frees_the_server(app, open_page) -> None:
    page = open_page()
    fill(page, prompt="once", max_tokens=4096, stop="")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    tokens_of(page).nth(20).wait_for()
    model = next(model for model in app.state.models.in_memory() if model.name == "fables")
    assert model.batcher.load().running == 1
    page.keyboard.press("Escape")
    expect(page.locator("[data-status]")).to_contain_text("stopped")
    deadline = time.monotonic() + 1
    while model.batcher.load().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert model.batcher.load().running == 0
    assert 20 < len(text_of(page)) < 4096
    expect(page.locator("#error")).to_be_empty()
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()


def test_a_token_shows_its_probability_and_alternatives(app, open_page) -> None:
    page = open_page()
    fill(page, prompt="once", max_tokens=20, stop="")
    finish(page)
    checkpoint = load_double(app.state.site.results / "fables/model")
    settings = SampleSettings(**{**OWN, "max_new_tokens": 20, "stop": []})
    engine = Engine(checkpoint.model, settings.model_copy(update={"dtype": "float64"}), TOKENIZER)
    steps = list(generate(engine, [Prompt(TOKENIZER.encode("once").tolist(), settings, 5)]))
    tip = page.get_by_role("tooltip")
    for number in (0, 7):
        tokens_of(page).nth(number).hover()
        likely = {one.token: one.log_probability for one in steps[number].best}
        likely[steps[number].token] = steps[number].log_probability
        ordered = sorted(likely, key=lambda token: -likely[token])
        shown = tip.locator("tr td:nth-child(2)").all_text_contents()
        wanted = [torch.tensor(likely[token]).exp().item() for token in ordered]
        assert [read_percent(text) for text in shown] == pytest.approx(wanted, abs=0.0011)
        own = tip.locator("tr.own")
        expect(own).to_have_count(1)
        name = own.locator("th").text_content()
        assert name == TOKENIZER.decode([steps[number].token]).replace(" ", "␣").replace("\n", "↵")
    page.locator("#prompt").hover()
    expect(tip).to_be_hidden()


def read_percent(text: str) -> float:
    return float(text.strip("<> %")) / 100


def test_tokens_can_be_reached_with_keys(open_page) -> None:
    page = open_page()
    fill(page, prompt="once", max_tokens=20, stop="")
    finish(page)
    tip = page.get_by_role("tooltip")
    # Only the first token takes part in the order of Tab.
    assert page.locator('[data-text] [tabindex="0"]').count() == 1
    page.locator("#colors").focus()
    page.keyboard.press("Tab")
    expect(tokens_of(page).nth(0)).to_be_focused()
    expect(tip).to_be_visible()
    for key, number in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 19)):
        page.keyboard.press(key)
        expect(tokens_of(page).nth(number)).to_be_focused()
        expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    expect(tokens_of(page).nth(19)).to_have_attribute("aria-describedby", "tip")


def test_a_line_feed_can_be_pointed_at(open_page) -> None:
    page = open_page("#prompt=once&max_tokens=200&temperature=1.2&top_k=0&stop=")
    finish(page)
    line_feed = page.locator("[data-text] .line-feed").first
    assert line_feed.text_content() == "\n"
    line_feed.hover(position={"x": 3, "y": 5})
    expect(page.get_by_role("tooltip").locator("tr.own th")).to_have_text("↵")


def test_a_screen_reader_hears_the_finished_text_only(open_page) -> None:
    page = open_page()
    fill(page, prompt="once", max_tokens=20, stop="")
    finish(page)
    heard = page.locator("[aria-live]")
    expect(heard).to_have_count(1)
    expect(heard).to_have_text(f"fables: done. {text_of(page)}".strip())


def test_two_models_continue_one_prompt(app, open_page) -> None:
    page = open_page()
    page.get_by_label("Compare with").select_option("novel")
    fill(page, prompt="once", max_tokens=80, stop="")
    finish(page)
    settings = {**OWN, "max_new_tokens": 80, "stop": []}
    assert page.locator(".output h2").all_text_contents() == ["fables", "novel"]
    for column, name in enumerate(("fables", "novel")):
        assert text_of(page, column) == sampled(app, name, "once", **settings)
    boxes = [page.locator(".output").nth(column).bounding_box() for column in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    page.set_viewport_size(TELEPHONE)
    boxes = [page.locator(".output").nth(column).bounding_box() for column in (0, 1)]
    assert boxes[0]["x"] == boxes[1]["x"]


def test_a_link_reproduces_everything(open_page, address: str) -> None:
    page = open_page()
    page.get_by_label("Compare with").select_option("raw")
    fill(page, prompt="a 日\n🎭, É", max_tokens=70, temperature=1.25, seed=7, stop="zz\\n\\\\\nq,")
    finish(page)
    texts = [text_of(page, column) for column in (0, 1)]
    in_address = page.url
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == in_address
    assert link.startswith(f"{address}/playground#")
    again = open_page(link.removeprefix(f"{address}/playground"))
    expect(again.locator(".output")).to_have_count(0)
    for name in (
        "model",
        "other",
        "prompt",
        "max_tokens",
        "temperature",
        "seed",
        "unknown",
        "stop",
    ):
        value = page.locator(f"#{name}").input_value()
        expect(again.locator(f"#{name}")).to_have_value(value)
    finish(again)
    assert [text_of(again, column) for column in (0, 1)] == texts


def test_a_runs_page_opens_the_playground_with_its_model(open_page, address: str) -> None:
    page = open_page()
    page.goto(f"{address}/runs/raw")
    page.get_by_role("link", name="Open in the playground").click()
    page.locator("form[data-ready]").wait_for()
    expect(page.locator("#model")).to_have_value("raw")


def test_the_copies_give_the_same_text(open_page, address: str) -> None:
    pytest.importorskip("openai")
    page = open_page()
    fill(page, prompt="it was\n日, ", max_tokens=40, seed=11, stop="zz")
    finish(page)
    code = copied(page, "Python")
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == code
    process = subprocess.run([sys.executable, "-"], input=code.encode(), stdout=-1, check=True)
    assert process.stdout.decode() == text_of(page) + "\n"
    assert copied(page, "command").startswith("nanogpt sample fables ")
    assert copied(page, "curl").startswith(f"curl -s {address}/v1/completions ")


def test_a_public_server_needs_its_token_which_no_copy_contains(
    app, browser: Browser, public_address: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{public_address}/playground?token=open-sesame#prompt=once&max_tokens=20&stop=")
    page.locator("form[data-ready]").wait_for()
    finish(page)
    wanted = sampled(app, "fables", "once", **{**OWN, "max_new_tokens": 20, "stop": []})
    assert text_of(page) == wanted
    for kind in ("link", "curl", "Python", "command"):
        copy = copied(page, kind)
        assert "sesame" not in copy
        assert ("NANOGPT_TOKEN" in copy) == (kind in ("curl", "Python"))
    ast.parse(copied(page, "Python"))
    context.close()


def test_a_script_in_a_prompt_stays_text(open_page) -> None:
    page = open_page()
    page.get_by_label("Model", exact=True).select_option("raw")
    page.get_by_text("Tokens of the prompt").click()
    fill(page, prompt=SCRIPT, max_tokens=10, stop=SCRIPT)
    finish(page)
    page.get_by_role("button", name="Copy as curl").click()
    assert page.locator(".begin").text_content() == SCRIPT
    expect(page.locator("#tokens-text")).to_have_text(SCRIPT)
    assert page.locator("main img, main script").count() == 0
    hostile = open_page(f"#model={SCRIPT}&other={SCRIPT}&prompt={SCRIPT}&stop={SCRIPT}")
    expect(hostile.locator("#model")).to_have_value(SCRIPT)
    expect(hostile.locator("#error")).to_have_text(f"no model `{SCRIPT}`; choose another one")
    assert hostile.locator("main img, main script").count() == 0


def test_the_prompt_is_shown_in_tokens(open_page) -> None:
    page = open_page()
    page.get_by_text("Tokens of the prompt").click()
    fill(page, prompt="a 日\nb")
    expect(page.locator("#tokens-count")).to_have_text(
        "5 tokens, 5 characters, 1.40 bytes per token"
    )
    pieces = page.locator("#tokens-text > span")
    assert pieces.all_text_contents() == ["a", " ", "日", "↵\n", "b"]
    pieces.nth(2).hover()
    expect(page.get_by_role("tooltip")).to_have_text("日id 31, 3 bytes")
    page.get_by_label("Tokenizer of").select_option("tale")
    expect(pieces).to_have_count(7)
    assert pieces.all_text_contents() == ["a", " ", "e6", "97", "a5", "↵\n", "b"]
    page.get_by_label("Tokenizer of").select_option("")
    expect(pieces).to_have_count(5)


def test_a_telephone_shows_everything(open_page, screenshot) -> None:
    page = open_page(viewport=TELEPHONE)
    page.get_by_text("Tokens of the prompt").click()
    page.get_by_label("Compare with").select_option("novel")
    page.get_by_label("Color tokens").check()
    fill(page, prompt="once upon a time", max_tokens=200, stop="")
    finish(page)
    page.get_by_role("button", name="Copy as curl").click()
    tokens_of(page).nth(30).hover()
    assert page.evaluate("document.documentElement.scrollWidth") == TELEPHONE["width"]
    tip = page.get_by_role("tooltip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= TELEPHONE["width"]
    screenshot(page, "playground-telephone")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_show_probabilities(open_page, screenshot, scheme: str) -> None:
    page = open_page(scheme=scheme, reduced_motion="reduce")
    page.get_by_text("Tokens of the prompt").click()
    page.get_by_label("Compare with").select_option("novel")
    fill(page, prompt="once upon a time", max_tokens=200, temperature=1.2, stop="")
    finish(page)
    looks = """spans => spans.map(
        (span) => [span.classList[0], getComputedStyle(span).backgroundColor]
    )"""
    plain = dict(tokens_of(page).evaluate_all(looks))
    assert set(plain.values()) == {"rgba(0, 0, 0, 0)"}
    page.get_by_label("Color tokens").check()
    expect(page.locator("#legend")).to_be_visible()
    colors = dict(tokens_of(page).evaluate_all(looks))
    assert len(colors) > 2
    assert len(set(colors.values())) == len(colors)
    tokens_of(page).nth(30).hover()
    screenshot(page, f"playground-{scheme}")
