"""Real servers in processes of their own."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.checkouts import PROJECT, own_environment

COMMAND = (sys.executable, "-c", "from nanogpt.cli.main import main; main()", "serve")
LONGEST_WAIT = 60.0


@dataclass
class Server:
    """A running server. errors: the file with what it printed on stderr."""

    process: subprocess.Popen[str]
    address: str
    token: str
    errors: Path

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.address)
        return str(parts.hostname), int(parts.port or 0)

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.address, headers=headers, timeout=LONGEST_WAIT)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.place, timeout=LONGEST_WAIT)


def environment_here(**values: str) -> dict[str, str]:
    """Return an environment in which a process uses this checkout, wherever it runs."""
    return own_environment(**{"PYTHONPATH": str(PROJECT), **values})


@contextmanager
def running(
    project: Path, *arguments: str, command: tuple[str, ...] = COMMAND, **environment: str
) -> Iterator[Server]:
    """Run a server on a free port of a project, and end it."""
    (project / "results").mkdir(exist_ok=True)
    errors = project.parent / f"{project.name}.errors"
    with errors.open("w") as file:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=project,
            env=environment_here(**environment),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line, errors.read_text()
        parts = urlsplit(line.strip())
        token = parse_qs(parts.query).get("token", [""])[0]
        yield Server(process, f"{parts.scheme}://{parts.netloc}", token, errors)
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, what: str, seconds: float = LONGEST_WAIT):
    """Wait until a function returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} seconds for {what}")


def events_of(text: str) -> list[object]:
    """Return the JSON of each event of a stream."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]
