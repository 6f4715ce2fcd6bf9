"""A project for the tests of S3 and Kubernetes."""

import os
from pathlib import Path

import yaml

from tests.cloud.conftest import BUCKET
from tests.faults import attacks

KEY = "texts/far é #1? 100%.txt"
TEXT = b"It was a bright cold day in April.\n" * 40


def make_project(directory: Path) -> Path:
    """A project whose runs read the user's own texts and prompt."""
    project = attacks.make_project(directory)
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["corpora"] = {"own": {"files": "texts"}, "far": {"url": f"s3://{BUCKET}/{KEY}"}}
    config["datasets"] = {"own": {}, "far": {}}
    prompted = {"sample": {"start": "FILE:prompt.txt"}}
    config["runs"] = {"demo": {"dataset": "own", **prompted}, "one": {"dataset": "own"}}
    config["runs"]["one"]["train"] = {"milestones": [10]}
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    (project / "prompt.txt").write_text("It was")
    (project / "texts").mkdir()
    for number in range(2):
        (project / f"texts/{number}.txt").write_bytes(TEXT + b"%d\n" % number)
    return project


def with_packages() -> str:
    """PYTHONPATH for a project's commands, with the directory that `make test-cloud` adds."""
    return os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])
