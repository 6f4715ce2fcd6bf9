"""Mistakes with `nanogpt serve`."""

import asyncio
import socket
from contextlib import closing
from pathlib import Path

from nanogpt.cli.main import main
from nanogpt.project import Project
from nanogpt.web.forms import NewRun, define_run
from nanogpt.web.texts import receive_text
from tests.mistakes.base import CONFIG, TEXT, Mistake, code, command, write_files


def _write_project() -> None:
    write_files({"config.yaml": CONFIG, "text.txt": TEXT})


def _write_two_projects() -> None:
    _write_project()
    for path in ("results", "other/results"):
        Path(path).mkdir(parents=True)


def _use_port_in_use() -> None:
    Path("results").mkdir()
    with closing(socket.create_server(("127.0.0.1", 8765))):
        main(["serve", "--port=8765"])


def _is_port_taken() -> bool:
    try:
        socket.create_server(("127.0.0.1", 8765)).close()
    except OSError:
        return True
    return False


def _form(title: str, shown: str, message: str, form: NewRun) -> Mistake:
    """Return a mistake in the form of a new run."""

    def make() -> None:
        _write_project()
        define_run(Project(), form)

    return Mistake(title, shown, make, message)


def _upload(title: str, shown: str, message: str, name: str, content: bytes) -> Mistake:
    """Return a mistake with an uploaded text."""

    async def pieces():
        yield content

    def make() -> None:
        _write_project()
        asyncio.run(receive_text(Project(), name, 1 << 20, pieces()))

    return Mistake(title, shown, make, message)


SERVE = [
    command(
        "serving a directory that doesn't exist",
        "serve elsewhere",
        "elsewhere: no such directory; name one that contains runs",
    ),
    command(
        "actions on another project's runs",
        "serve other/results --allow-actions",
        "--allow-actions: other/results isn't this project's `results`; run `nanogpt serve "
        "--allow-actions` in the directory of that project",
        _write_two_projects,
    ),
    Mistake(
        "serving on a port that's in use",
        code("nanogpt serve --port=8765"),
        _use_port_in_use,
        "--port: 8765 is in use; stop the other program or use another port, such as --port=8766, "
        "or --port=0 for any free one",
        _is_port_taken,
    ),
    command(
        "serving on an address of another machine",
        "serve --host=192.0.2.1",
        "--host: can't listen on `192.0.2.1` (Cannot assign requested address); use 127.0.0.1, "
        "0.0.0.0 or an address of this machine",
        lambda: Path("results").mkdir(),
    ),
    _form(
        "a wrong value in the form of a new run",
        "`train.max_iters`: `many`",
        "train.max_iters: should be a number, such as 10000, 10_000 or 1e4 (found `many`)",
        NewRun(run="first", settings={"train.max_iters": "many"}),
    ),
    _form(
        "a file as a prompt in the form of a new run",
        "`sample.start`: `FILE:notes.txt`",
        "sample.start: can't be a file when it's set on the page; write the prompt itself, or use "
        "the command line",
        NewRun(run="first", settings={"sample.start": "FILE:notes.txt"}),
    ),
    _form(
        "a form without a text",
        "no text, dataset or run",
        "choose a text, a dataset or a run",
        NewRun(),
    ),
    _upload(
        "uploading an archive",
        "a gzip file that's named `novel.txt`",
        "resources/texts/novel.txt: a compressed file or an archive; unpack it first",
        "novel.txt",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ),
    _upload(
        "uploading a text with an invalid name",
        "`my novel.txt`",
        "invalid name `my novel.txt`; use letters, digits, `.`, `-` and `_`, starting with a "
        "letter or digit",
        "my novel.txt",
        TEXT.encode(),
    ),
    _upload(
        "uploading a text with the name of a dataset of config.yaml",
        "`letters.txt`",
        "resources/texts/letters.txt: config.yaml or resources/config has another corpus or "
        "dataset `letters`; rename the text, or remove that entry",
        "letters.txt",
        TEXT.encode(),
    ),
]
