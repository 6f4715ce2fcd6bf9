"""The wheel has all that the library and the command line need, and works without the checkout."""

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanogpt"
MODEL = ROOT / "tests/fixtures/format_1/model"

LIBRARY_CALL = """
import sys
from pathlib import Path

import nanogpt
from nanogpt.config.schema import Corpus, Dataset
from nanogpt.data.preparing import prepare
from nanogpt.model.directories import load_model
from nanogpt.report.page import TEMPLATE, TEMPLATES

assert not Path(nanogpt.__file__).is_relative_to(sys.argv[2]), "the installed package, not ours"
assert (TEMPLATES / TEMPLATE).is_file()
text = Path("text.txt")
text.write_text("It was a bright cold day in April.\\n" * 20)
prepare([text], Corpus(files=["text.txt"]), Dataset(), Path("dataset"))
print(load_model(Path(sys.argv[1])).model.n_parameters())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this project, built from a copy of what is in it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "nanogpt", ignore=shutil.ignore_patterns("__pycache__"))
    directory = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(directory)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (built,) = directory.glob("nanogpt-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh environment that has the wheel, and the dependencies of this one."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin/python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # Only directories named here are searched, so the editable installation of this one isn't.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*command, "--no-index", "--quiet", "--force-reinstall", str(wheel)], check=True)
    return environment / "bin"


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command in a directory that isn't the checkout, without its path."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "COVERAGE"))}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=own, capture_output=True, text=True, check=False
    )


def test_the_wheel_has_every_package_and_every_file_beside_its_modules(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT)) for path in files} <= packed


def test_the_command_line_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    ended = run(installed / "nanogpt", "--help", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "sample" in ended.stdout


def test_an_installed_nanogpt_samples_from_a_model(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    options = ("--num-samples", "1", "--max-new-tokens", "8")
    ended = run(installed / "nanogpt", "sample", "model", *options, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.strip()) > 0


def test_an_installed_library_prepares_a_text_and_reads_a_model(
    installed: Path, tmp_path: Path
) -> None:
    ended = run(installed / "python", "-c", LIBRARY_CALL, MODEL, ROOT, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0
