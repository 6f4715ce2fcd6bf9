"""Measure how long `nanogpt serve` takes to list many runs.

    python benchmarks/runs_list.py results/shakespeare_char           2,000 copies of that run
    python benchmarks/runs_list.py results/shakespeare_char --runs=100

The copies are hard links in a temporary directory next to the run. Prints CPU times, of the server
and of a client in the same process: of the first start, without an index; of a start with an index;
and the medians of the list as a page and as JSON, each with a look at all files.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from fastapi.testclient import TestClient  # noqa: E402

from nanogpt.project import Project  # noqa: E402
from nanogpt.web import index  # noqa: E402
from nanogpt.web.app import create_app  # noqa: E402
from nanogpt.web.site import Site  # noqa: E402

ROUNDS = 9


@contextmanager
def opened(project: Project) -> Iterator[TestClient]:
    """Yield a client of a server that starts, and end the server."""
    with TestClient(create_app(Site(project, project.results)), "http://127.0.0.1") as client:
        yield client
        client.app.state.index.close()  # type: ignore[attr-defined]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def list_all(client: TestClient) -> None:
    """List runs until all have been read."""
    while client.get("/api/runs").json()["n_unread"]:
        pass


def copy_run(run: Path, project: Project, number: int) -> None:
    """Make copies of a run's own files in a project."""
    files = [path for path in run.iterdir() if path.is_file()]
    for i in range(number):
        directory = project.results / f"run-{i}"
        directory.mkdir(parents=True)
        for file in files:
            os.link(file, directory / file.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("--runs", type=int, default=2000, help="how many copies to list")
    arguments = parser.parse_args()
    index.LOOK = 0.0  # each list includes a look
    with tempfile.TemporaryDirectory(dir=arguments.run.resolve().parent, prefix=".") as directory:
        project = Project(Path(directory))
        copy_run(arguments.run, project, arguments.runs)
        for name in ("first start", "start with an index"):
            with opened(project) as client:
                print(f"{name}: {cpu_seconds(partial(list_all, client)):.2f} s")
        with opened(project) as client:
            list_all(client)
            for name, address in (("page", "/"), ("JSON", "/api/runs")):
                seconds = [cpu_seconds(partial(client.get, address)) for _ in range(ROUNDS)]
                print(f"the list as {name}: {1000 * statistics.median(seconds):.0f} ms")


if __name__ == "__main__":
    main()
