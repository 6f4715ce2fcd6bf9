"""From a text to samples without a terminal: a real training, on the page of a real server."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.screens import DESKTOP
from tests.browser.test_serve_runs import HAS_COLOR
from tests.web.serving import COMMAND, environment_here, running
from tests.workflow.conftest import write_project

# Each line has numbers that can't be guessed, so the loss has something to fall from.
TEXT = "".join(
    f"On day {i} the {('king', 'fool', 'queen')[i * i % 7 % 3]} told {i * i % 97} tales to the "
    f"{('owl', 'fox', 'bear', 'hare')[i * i % 11 % 4]}.\n"
    for i in range(3000)
)
# Half a minute of training on two cores.
SETTINGS = {
    "train.max_iters": "1200",
    "train.batch_size": "16",
    "train.eval_interval": "50",
    "train.log_interval": "10",
    "model.n_layer": "2",
    "model.n_head": "2",
    "model.n_embd": "64",
    "model.block_size": "64",
    "sample.start": "On day ",
}
LONG = 180_000  # milliseconds, for stages of a training on a busy machine


@dataclass(frozen=True)
class Trained:
    """What remains after a training on the page.

    project: the directory. generated: the text that the playground showed. command: what it copied
    to reproduce that. stopped_at: the last step on the page when Stop was pressed.
    """

    project: Path
    generated: str
    command: str
    stopped_at: int
    requests: list[str]
    messages: list[str]
    actions: list[list[str]]
    address: str


@pytest.fixture(scope="module")
def trained(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Upload a text, train on it with a stop in between, and generate text, all on the page."""
    directory = tmp_path_factory.mktemp("training")
    project = write_project(directory / "checkout")
    text = directory / "tales.txt"
    text.write_text(TEXT)
    requests, messages = [], []
    with running(project, "--port=0", "--allow-actions") as server:
        context = browser.new_context(viewport=DESKTOP)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(f"{server.address}/?token={server.token}")
        start_training(page, text)
        stopped_at = watch_and_stop(page)
        resume(page)
        generated, command = generate(page)
        context.close()
        actions = [line.split()[3:5] for line in server.errors.read_text().splitlines()]
        yield Trained(
            project, generated, command, stopped_at, requests, messages, actions, server.address
        )


def start_training(page: Page, text: Path) -> None:
    page.get_by_role("navigation").get_by_role("link", name="New run").click()
    page.get_by_label("File").set_input_files(text)
    page.get_by_label("Name").fill("mine")
    page.get_by_text("Training", exact=True).click()
    for name, value in SETTINGS.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Train").click()
    page.wait_for_url("**/runs/mine")
    expect(page.get_by_role("heading", level=1)).to_have_text("mine")


def watch_and_stop(page: Page) -> int:
    expect_status(page, "training")
    summary = page.locator("[data-summary]")
    expect(summary).to_contain_text("validation loss", timeout=LONG)
    first, picture = last_step(page), curve(page)
    page.wait_for_function(
        "first => Number(document.querySelector('[data-summary]').textContent"
        ".match(/at step ([\\d,]+)/)[1].replaceAll(',', '')) > first",
        arg=first + 50,
        timeout=LONG,
    )
    assert curve(page) != picture
    assert page.evaluate(HAS_COLOR, ["[data-chart=loss]", "look-0"])
    expect(page.locator("[data-log]")).to_contain_text("INFO step", timeout=LONG)
    stopped_at = last_step(page)
    page.get_by_role("button", name="Stop").click()
    expect_status(page, "stopped")
    return stopped_at


def resume(page: Page) -> None:
    page.get_by_role("button", name="Continue").click()
    # The page of a run that was stopped is followed again, without another look at it.
    expect_status(page, "training")
    expect_status(page, "finished")
    expect(page.locator("[data-summary]")).to_contain_text("at step 1,200", timeout=20_000)
    samples = page.get_by_role("region", name="Samples")
    expect(samples).to_contain_text("On day ", timeout=LONG)


def generate(page: Page) -> tuple[str, str]:
    page.get_by_role("link", name="Open in the playground").click()
    page.locator("form[data-ready]").wait_for()
    expect(page.get_by_label("Model", exact=True)).to_have_value("mine")
    for name, value in {"prompt": "On day 7 the", "max_tokens": "200", "seed": "42"}.items():
        page.locator(f"#{name}").fill(value)
    page.get_by_role("button", name="Generate").click()
    page.locator("#generate:enabled").wait_for(timeout=LONG)
    expect(page.locator("#error")).to_be_empty()
    page.get_by_role("button", name="Copy as command").click()
    pieces = page.locator("[data-text] span").all_text_contents()
    return "".join(pieces), page.locator("#copy").text_content()


def expect_status(page: Page, status: str) -> None:
    expect(page.locator("[data-state] .badge")).to_have_text(status, timeout=LONG)


def last_step(page: Page) -> int:
    """Return the step of the last validation loss that the chart shows."""
    text = page.locator("[data-summary]").text_content()
    return int(re.search(r"at step ([\d,]+)", text)[1].replace(",", ""))


def curve(page: Page) -> str:
    return page.locator("[data-chart=loss] canvas").evaluate("canvas => canvas.toDataURL()")


def run_command(project: Path, command: str) -> str:
    """Run a command of nanogpt in a shell, and return what it prints."""
    script = f'nanogpt() {{ {shlex.join(COMMAND[:-1])} "$@"; }}\n{command}'
    process = subprocess.run(
        ["bash", "-c", script],
        cwd=project,
        env=environment_here(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_only_this_server_is_asked_and_the_browser_is_silent(trained) -> None:
    assert trained.messages == []
    assert [url for url in trained.requests if not url.startswith(f"{trained.address}/")] == []
    assert trained.address.startswith("http://127.0.0.1:")


def test_actions_are_logged(trained) -> None:
    assert trained.actions == [
        ["upload", "resources/texts/tales.txt"],
        ["start", "mine"],
        ["stop", "mine:"],
        ["start", "mine"],
    ]


def test_the_training_continues_where_it_was_stopped(trained) -> None:
    log = (trained.project / "results/mine/train.log").read_text()
    resumed = re.search(r"resum\w+ .*step ([\d,]+)", log)
    assert int(resumed[1].replace(",", "")) >= trained.stopped_at


def test_the_text_is_that_of_nanogpt_sample(trained) -> None:
    """Both compute in float32, which the command line offers: one sequence alone is exact on one
    machine. test_serve_playground.py compares in float64, where batches are exact too."""
    assert len(trained.generated) == len("On day 7 the") + 200
    assert trained.command.startswith("nanogpt sample mine ")
    assert "--seed=42" in trained.command
    assert run_command(trained.project, trained.command) == trained.generated + "\n"


@pytest.mark.slow
def test_the_model_has_the_bytes_of_an_uninterrupted_training(trained, tmp_path) -> None:
    other = write_project(tmp_path / "checkout")
    texts = "resources/texts/tales.txt"
    shutil.copy(trained.project / texts, other / texts)
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    run_command(other, shlex.join(["nanogpt", "train", "tales", "--name=mine", *flags]))
    weights = "results/mine/model/model.safetensors"
    assert (trained.project / weights).read_bytes() == (other / weights).read_bytes()
