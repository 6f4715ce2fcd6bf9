"""Each command that a page shows runs as it is shown, on the page's settings with tiny models.

A page's blocks run in its order, in one checkout. A block that can't run here has a comment with
the reason before it: `<!-- not run by the tests: needs a GPU -->`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.checkouts import MIRROR, own_environment
from tests.docs.commands import PAGES, blocks_of, indented_commands, scripts_of, settings_of
from tests.docs.shrunk import TEXT, shipped_config, shrunk_checkout

# Pages whose commands run in the directory that has the checkout, not in the checkout.
BESIDE = {"EMBEDDING.md"}
# Pages whose commands need trained runs.
TRAINED = {
    "INTERCHANGE.md": ("shakespeare_char", "shakespeare_char_quickstart"),
    "RELIABILITY.md": ("demo",),
    "REPRODUCIBILITY.md": ("shakespeare_char",),
    "SAMPLING.md": ("shakespeare_char", "shakespeare_char_quickstart"),
    "SERVE.md": ("demo",),
    "UPGRADING.md": ("demo", "shakespeare_char"),
}
# Pages whose commands need a running server. They use its usual port; the test takes a free one.
SERVED = {"SERVE.md"}
USUAL = "http://127.0.0.1:8000/"
LANGUAGES = {"bash", "console", "json", "python", "text", "yaml"}


@pytest.fixture
def checkout(tmp_path: Path, page: Path) -> Path:
    """A checkout with the shipped runs and the page's, and the files that the pages name."""
    config = shipped_config()
    for key, entries in settings_of(page).items():
        config[key] = {**config[key], **entries}
    project = shrunk_checkout(tmp_path, config)
    texts = [tmp_path / "mybook.txt", tmp_path / "diary.txt"]
    for name in ("essays", "letters"):
        if name not in config["corpora"]:
            texts.append(project / f"resources/texts/{name}.txt")
    for text in texts:
        text.write_text(TEXT)
    return project


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_blocks_say_what_they_are(page: Path) -> None:
    """Otherwise a command could hide from the tests."""
    assert {block.language for block in blocks_of(page)} <= LANGUAGES
    assert indented_commands(page) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if scripts_of(page)], ids=lambda page: page.name
)
def test_a_pages_commands_run(page: Path, checkout: Path) -> None:
    if not MIRROR:
        pytest.skip("NANOGPT_MIRROR is not set: GPT-2's merges aren't here")
    environment = own_environment(
        HOME=str(checkout.parent),
        NANOGPT_MIRROR=str(checkout.parent / "mirror"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    place = checkout.parent if page.name in BESIDE else checkout
    targets = [f"results/{run}/eval.json" for run in TRAINED.get(page.name, ())]
    first = [f"snakemake --cores 2 {' '.join(targets)}"] if targets else []

    def run(script: str) -> None:
        ended = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode == 0, f"{script}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"

    for script in first:
        run(script)
    with serving(place, environment) if page.name in SERVED else nullcontext(USUAL) as url:
        for script in scripts_of(page):
            # Otherwise curl succeeds whatever the server answers.
            run(script.replace("curl ", "curl --fail ").replace(USUAL, url))
        if page.name in SERVED:
            for block in blocks_of(page):
                if block.language == "python" and block.is_run:
                    run(f"python <<'END'\n{block.text.replace(USUAL, url)}END")


@contextmanager
def serving(place: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `nanogpt serve` on a free port; yields its address."""
    server = subprocess.Popen(
        ["nanogpt", "serve", "--port=0"],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()
