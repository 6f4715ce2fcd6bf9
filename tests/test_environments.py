"""The lock files, the conda environment and the recipes of images have the same versions."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import conda
from tests.checkouts import PROJECT

LOCKED = {
    "requirements.lock": conda.requirements("workflow", "web", "dev", "gguf"),
    "cloud.lock": conda.requirements("cloud", "cloud-dev")[len(conda.requirements()) :],
}
RECIPES = [PROJECT / "envs/Dockerfile", PROJECT / "envs/nanogpt.def"]
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)


@pytest.mark.parametrize("name", LOCKED)
def test_a_lock_file_has_what_its_groups_require(name: str) -> None:
    lock = {key: Requirement(pin) for key, pin in conda.read_lock(name).items()}
    for wanted in LOCKED[name]:
        (pinned,) = lock[canonicalize_name(wanted.name)].specifier
        assert wanted.specifier.contains(pinned.version), wanted


def test_no_package_is_in_two_lock_files() -> None:
    assert not conda.read_lock("requirements.lock").keys() & conda.read_lock("cloud.lock").keys()


def test_conda_installs_what_jobs_need_at_the_locked_versions() -> None:
    environment = yaml.safe_load((PROJECT / "envs/nanogpt.yaml").read_text())
    python, pip, packages = environment["dependencies"]
    assert (python, pip) == (f"python={conda.PYTHON}", "pip")
    pins = set(packages["pip"])
    lock = conda.read_lock("requirements.lock")
    assert pins <= set(lock.values())
    needed = conda.closure(conda.requirements("gguf"))
    missing = {lock[name] for name in needed & lock.keys()} - pins
    assert not missing, "run `make format`"


@each_recipe
def test_an_image_is_built_from_the_lock_files(recipe: Path) -> None:
    text = recipe.read_text()
    (base,) = re.findall(r"^FROM:? (\S+)$", text, re.M | re.I)
    assert base == f"python:{conda.PYTHON}-slim"
    commands = re.findall(r"pip install(.+?)$", text.replace("\\\n", ""), re.M)
    assert len(commands) == 2
    for command in commands:
        assert "--constraint envs/requirements.lock" in command
    assert "--constraint envs/cloud.lock" in commands[-1]
    (extras,) = re.findall(r'"\.\[([\w,-]+)\]"', commands[-1])
    assert set(extras.split(",")) == {"workflow", "web", "gguf", "cloud"}


@each_recipe
def test_an_image_has_all_files_that_it_copies(recipe: Path) -> None:
    """They're copied one by one, so that results and `.git` stay out."""
    text = recipe.read_text()
    lines = re.findall(r"^COPY (.+) \S+$", text, re.M) + re.findall(
        r"^ {4}(\S+) /opt/nanogpt/", text, re.M
    )
    files = {name for line in lines for name in line.split()}
    assert files == {
        *("envs/requirements.lock", "envs/cloud.lock"),
        *("pyproject.toml", "README.md", "LICENSE", "nanogpt"),
    }
    assert all((PROJECT / name).exists() for name in files)


def test_a_checkout_in_the_docker_container_is_used_instead_of_the_images_copy() -> None:
    text = (PROJECT / "envs/Dockerfile").read_text()
    (path,) = re.findall(r"^ENV PYTHONPATH=(.+)$", text, re.M)
    *_, workdir = re.findall(r"^WORKDIR (.+)$", text, re.M)
    assert path == workdir


def test_a_checkout_is_used_instead_of_the_apptainer_images_copy(tmp_path: Path) -> None:
    text = (PROJECT / "envs/nanogpt.def").read_text()
    (section,) = re.findall(r"^%environment\n((?: {4}.+\n)+)", text, re.M)
    (tmp_path / "nanogpt").mkdir()
    (tmp_path / "nanogpt/__init__.py").touch()
    script = f"{section}\n{sys.executable} -c 'import nanogpt; print(nanogpt.__file__)'"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    found = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).parent == tmp_path / "nanogpt"


def test_the_docker_image_does_not_run_as_root() -> None:
    text = (PROJECT / "envs/Dockerfile").read_text()
    instructions = re.findall(r"^([A-Z]+) (.+)$", text, re.M)
    users = [value for name, value in instructions if name == "USER"]
    assert users == ["nanogpt"]
    assert [name for name, _ in instructions].index("USER") > max(
        number for number, (name, _) in enumerate(instructions) if name == "RUN"
    )
