"""The workflow without its package, and names that are too long for files."""

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
    """A config.yaml with a name that is too long."""

    def make() -> None:
        write_files({"config.yaml": text})
        read()

    return Mistake(title, shown, make, message)


EMBEDDING = [
    Mistake(
        "an installed package of another version",
        "a deployed workflow, after an upgrade of only the workflow or the package",
        lambda: with_package('__version__ = "0.9.0"'),
        f"this workflow needs nanogpt {__version__}, but 0.9.0 is installed; run `pip install .` "
        f"in a checkout of {__version__}",
    ),
    Mistake(
        "no installed package",
        "a deployed workflow, where `pip install .` was forgotten",
        lambda: with_package(""),
        f"this workflow needs nanogpt {__version__}, but no version is installed; run "
        f"`pip install .` in a checkout of {__version__}",
    ),
    config(
        "a run name that is too long for a file",
        code("runs: {aaa...: {}}") + " with 256 `a`",
        f"corpora: {{text: {{builtin: play}}}}\nruns: {{{'a' * 256}: {{dataset: text}}}}\n"
        "datasets: {text: {}}",
        "runs: a name of 256 bytes, `aaaaaaaaaaaaaaaaaaaa...`; a file name here can have 255",
    ),
    config(
        "a download whose name is too long for its manifest",
        code("corpora: {text: {url: https://corpora.example/aaa...}}") + " with 233 `a`",
        f"corpora: {{text: {{url: https://corpora.example/{'a' * 233}}}}}",
        "corpora.text.url: a name of 233 bytes, `aaaaaaaaaaaaaaaaaaaa...`; a file name here can "
        "have 232",
    ),
]
