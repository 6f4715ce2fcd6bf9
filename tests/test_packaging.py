"""The wheel has everything that it needs, and works without the checkout."""

import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import nanogpt
from nanogpt.cli.serve import PACKAGES
from tests.checkouts import PROJECT, own_environment
from tests.made_runs import make_run

PACKAGE = PROJECT / "nanogpt"
MODEL = PROJECT / "tests/fixtures/format_1/model"

LIBRARY_CALL = """
import sys
from pathlib import Path

import nanogpt
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.schema import EvalSettings, ModelSettings, TrainSettings
from nanogpt.data.preparing import prepare
from nanogpt.evaluation.evaluate import evaluate
from nanogpt.training.loop import train

assert not Path(nanogpt.__file__).is_relative_to(sys.argv[1]), "the installed package, not ours"
text, dataset, results = Path("text.txt"), Path("dataset"), Path("results/demo")
text.write_text("It was a bright cold day in April.\\n" * 20)
prepare([text], Corpus(files=["text.txt"]), Dataset(), dataset)
model = ModelSettings(n_layer=1, n_head=1, n_embd=8, block_size=8)
steps = TrainSettings(max_iters=2, warmup_iters=1, eval_iters=1, device="cpu", dtype="float32")
train("demo", dataset, model, steps, TrainingState(Path("state"), "version"), results)
evaluation = evaluate(
    "demo", dataset, results / "model", EvalSettings(device="cpu"), results / "eval.json"
)
print(evaluation.val.loss)
"""


def isolation() -> list[str]:
    """Avoid an isolated build if setuptools is recent enough, since it needs a package registry."""
    try:
        version = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        return []
    return ["--no-build-isolation"] if int(version.split(".")[0]) >= 77 else []


def test_serve_checks_all_packages_of_its_extra() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    requirements = extras["optional-dependencies"]["web"]
    names = {re.match(r"[\w-]+", one)[0].replace("-", "_") for one in requirements}
    assert set(PACKAGES) == names - {"uvloop"}  # it's only faster


def test_the_citation_has_the_packages_version() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["version"] == nanogpt.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project's wheel, built from a copy of its files."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(PACKAGE, source / "nanogpt", ignore=shutil.ignore_patterns("__pycache__"))
    directory = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", *isolation(), "--quiet", "--wheel-dir", str(directory)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (built,) = directory.glob("nanogpt-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts directory of a new environment with the wheel and our dependencies."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin/python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # Only these directories are searched, so our editable installation isn't found.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*command, "--no-index", "--quiet", "--force-reinstall", str(wheel)], check=True)
    return environment / "bin"


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout."""
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=own_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )


def test_wheel_has_all_packages_and_data_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(PROJECT)) for path in files} <= packed


def test_command_line_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    ended = run(installed / "nanogpt", "--help", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "sample" in ended.stdout


def test_an_installed_nanogpt_samples_from_a_model(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    options = ("--num-samples", "1", "--max-new-tokens", "8")
    ended = run(installed / "nanogpt", "sample", "model", *options, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.strip()) > 0


@pytest.mark.slow
def test_an_installed_library_trains_and_evaluates(installed: Path, tmp_path: Path) -> None:
    ended = run(installed / "python", "-c", LIBRARY_CALL, PROJECT, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) > 0


@pytest.mark.slow
def test_an_installed_nanogpt_writes_a_report_if_its_template_is_there(
    installed: Path, tmp_path: Path
) -> None:
    make_run(tmp_path, "demo")
    ended = run(installed / "nanogpt", "report", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "<html" in (tmp_path / "results/report/now/index.html").read_text()

    (template,) = installed.parent.glob("lib/python*/site-packages/nanogpt/report/templates/*.html")
    template.rename(tmp_path / "template")
    ended = run(installed / "nanogpt", "report", cwd=tmp_path)
    (tmp_path / "template").rename(template)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "`report.html` is missing from this installation" in ended.stderr
