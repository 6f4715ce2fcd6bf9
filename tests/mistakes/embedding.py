"""A workflow without a matching package, and names too long for a file."""

import shutil
import subprocess
import sys

from nanogpt import __version__
from nanogpt.config.loading import read
from tests.checkouts import own_environment
from tests.mistakes.base import ROOT, Mistake, code, write_files


def with_package(init: str) -> None:
    """Plan the jobs of a workflow without its package, with another nanogpt installed."""
    shutil.copytree(ROOT / "workflow", "workflow")
    write_files({"packages/nanogpt/__init__.py": init, "config.yaml": "report: {}"})
    shutil.copy(ROOT / "Snakefile", ".")
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run"],
        env=own_environment(PYTHONPATH="packages"),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    sys.exit(next(line for line in run.stderr.splitlines() if line.startswith("error: ")))


def config(title: str, shown: str, text: str, message: str) -> Mistake:
    """A config.yaml with a name that's too long."""

    def make() -> None:
        write_files({"config.yaml": text})
        read()

    return Mistake(title, shown, make, message)


EMBEDDING = [
    Mistake(
        "a different version of the installed package",
        "a deployed workflow, after upgrading only one of the two",
        lambda: with_package('__version__ = "0.9.0"'),
        f"this workflow needs nanogpt {__version__}, but 0.9.0 is installed; run `pip install .` "
        f"in a checkout of {__version__}",
    ),
    Mistake(
        "a missing package",
        "a deployed workflow, where `pip install .` was forgotten",
        lambda: with_package(""),
        f"this workflow needs nanogpt {__version__}, but no version is installed; run "
        f"`pip install .` in a checkout of {__version__}",
    ),
    config(
        "a run name too long for a file",
        code("runs: {aaa...: {}}") + " with 256 `a`",
        f"corpora: {{text: {{builtin: play}}}}\nruns: {{{'a' * 256}: {{dataset: text}}}}\n"
        "datasets: {text: {}}",
        "runs: the name `aaaaaaaaaaaaaaaaaaaa...` is 256 bytes long, but 255 is the most; use a "
        "shorter one",
    ),
    config(
        "a run name that repeats itself",
        code(f"runs: {{run{'0' * 20}: {{}}}}"),
        f"corpora: {{text: {{builtin: play}}}}\nruns: {{run{'0' * 20}: {{dataset: text}}}}\n"
        "datasets: {text: {}}",
        f"runs: the name `run{'0' * 20}` ends in the same characters 20 times, which Snakemake "
        "refuses; use another name",
    ),
    config(
        "a download with a name too long for its manifest",
        code("corpora: {text: {url: https://corpora.example/aaa...}}") + " with 233 `a`",
        f"corpora: {{text: {{url: https://corpora.example/{'a' * 233}}}}}",
        "corpora.text.url: the name `aaaaaaaaaaaaaaaaaaaa...` is 233 bytes long, but 232 is the "
        "most; download it yourself under a shorter name, and list it under `files`",
    ),
]
