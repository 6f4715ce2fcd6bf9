"""Print envs/nanogpt.yaml: what jobs need, at the versions of envs/requirements.lock.

`make format` runs this. It asks the installed packages what they need.
"""

import tomllib
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.checkouts import PROJECT

PYTHON = "3.11"  # the lowest that `requires-python` allows, as in the images
HEAD = f"""\
# For `snakemake --sdm conda`: what the jobs need, at the versions of requirements.lock. The package
# itself is found in the checkout. Made by `make format`.
channels:
  - conda-forge
dependencies:
  - python={PYTHON}
  - pip
  - pip:
"""


def read_lock(name: str) -> dict[str, str]:
    """The lines of a lock file, by the name of the package in its normal form."""
    lines = (PROJECT / "envs" / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.partition("==")[0]): pin for pin in pins}


def requirements(*extras: str) -> list[Requirement]:
    """What pyproject.toml requires, with these extras."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *map(project["optional-dependencies"].get, extras)]
    return [Requirement(one) for group in groups for one in group]


def closure(wanted: list[Requirement]) -> set[str]:
    """The names of these packages and of all that they need, as far as they're installed."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            extras = ["", *one.extras]
            if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
                needed.marker = None
                waiting.append(needed)
    return found


def environment() -> str:
    """The content of envs/nanogpt.yaml."""
    lock = read_lock("requirements.lock")
    names = closure(requirements("gguf"))
    pins = [pin for name, pin in lock.items() if name in names]
    return HEAD + "".join(f"      - {pin}\n" for pin in pins)


if __name__ == "__main__":
    print(environment(), end="")
