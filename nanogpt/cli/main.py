"""The command line: `nanogpt <command>`, with flags and help from config.py.

A command calls one function of the package; torch is imported only by those that compute with it.
"""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import ValidationError
from tyro.conf import Positional

from nanogpt import __version__
from nanogpt.artifacts import manifests as manifest
from nanogpt.config import loading, reference, resolving
from nanogpt.config.messages import explain
from nanogpt.config.schema import Config, SampleSettings
from nanogpt.errors import UserError, plural, user_message

app = tyro.extras.SubcommandApp()


@app.command(name="config")
def show_config(run: Positional[str], config_file: Path = Path("config.yaml")) -> None:
    """Print what a run resolves to, and where each value is from.

    Args:
        run: name of a run, or of a dataset, or of a text in resources/texts/.
        config_file: the config file.
    """
    print(reference.describe_run(loading.read(config_file), run), end="")


@app.command
def sample(
    model: Positional[Path],
    settings: Annotated[SampleSettings, tyro.conf.arg(name="")] = SampleSettings(),  # noqa: B008
) -> None:
    """Draw samples from a model directory, streaming them to the terminal.

    Args:
        model: a model directory, such as results/demo/model.
        settings: how to sample.
    """
    from nanogpt import devices as device
    from nanogpt.inference.sampling import stream
    from nanogpt.model.directories import load_model

    resolved = SampleSettings(**device.resolve(settings.model_dump()))
    for piece in stream(load_model(model, resolved.device), resolved):
        print(piece, end="", flush=True)


@app.command
def tokenize(tokenizer: Positional[Path], text: Positional[str] = "-") -> None:
    """Show a text as tokens: a line for each, with its id and its text.

    Args:
        tokenizer: a dataset, a model or a tokenizer.json, such as results/datasets/shakespeare.
        text: the text, or FILE:path of a UTF-8 file; -: standard input.
    """
    from nanogpt.data.sources import read_text
    from nanogpt.data.tokenizers import load_tokenizer

    known = load_tokenizer(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer)
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8")
    elif text.startswith("FILE:"):
        text = read_text(Path(text.removeprefix("FILE:")))
    tokens = known.encode(text)
    for token in tokens.tolist():
        data = known.to_bytes([token])
        try:
            shown = repr(data.decode("utf-8"))
        except UnicodeDecodeError:  # a part of a character
            shown = repr(data)
        print(f"{token:>6}  {shown}")
    n_bytes = len(text.encode("utf-8"))
    ratio = f", {n_bytes / len(tokens):.2f} bytes a token" if len(tokens) else ""
    print(f"{plural(len(tokens), 'token')} of {known.vocab_size}, {len(text)} characters{ratio}")


@app.command
def export(
    what: Positional[Literal["dataset"]],  # noqa: ARG001
    source: Positional[Path],
    destination: Positional[Path],
) -> None:
    """Write a dataset in the form that nanoGPT reads.

    Args:
        what: what is exported.
        source: a dataset, such as results/datasets/shakespeare_char.
        destination: a directory of nanoGPT's, such as nanoGPT/data/mine.
    """
    from nanogpt.interchange.nanogpt_data import export_dataset

    export_dataset(source, destination)


@app.command
def verify(
    paths: Positional[tuple[Path, ...]] = (Path("results"), Path("resources")),
    json: bool = False,
) -> None:
    """Hold manifests, and those of all they were made from, against the files.

    Exit code 1 and a line for each file that differs.

    Args:
        paths: directories or manifests; the project's directory is where this must be called.
        json: print JSON instead: the manifests that were read, and the problems.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or directory; name results or a manifest")
    manifests = manifest.find_manifests(paths)
    if not manifests:
        raise UserError(f"{', '.join(map(str, paths))}: no manifest there; run the workflow first")
    digests: dict[str, str] = {}
    found = {problem: None for path in manifests for problem in manifest.verify(path, digests)}
    problems = sorted(found, key=str)
    if json:
        _print_json(
            {"manifests": list(map(str, manifests)), "problems": list(map(asdict, problems))}
        )
    else:
        for problem in problems:
            print(problem)
        print(f"{plural(len(manifests), 'manifest')}, {plural(len(problems), 'problem')}")
    if problems:
        sys.exit(1)


@app.command
def bench(run: Positional[str], config_file: Path = Path("config.yaml")) -> None:
    """Measure how fast this machine trains a run's model and samples from it, and print it as JSON.

    All cores compute. The workflow's rule `bench` keeps what it measures, with as many threads as
    training has, in results/<run>/bench.json, where the report finds it.

    Args:
        run: a run whose dataset was made.
        config_file: the config file.
    """
    from nanogpt import devices as device
    from nanogpt.evaluation.benchmark import bench as measure

    asked = resolving.resolve_run(loading.read(config_file), run)
    train = asked.train.model_copy(update=device.resolve(asked.train.model_dump()))
    sample = asked.sample.model_copy(update=device.resolve(asked.sample.model_dump()))
    made = Path("results/datasets") / asked.dataset
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.json"
        _print_json(measure(run, made, asked.model, train, asked.bench, sample, path))


@app.command
def report(results: Path = Path("results"), output: Path = Path("results/report/now")) -> None:
    """Compare all runs that lie there as they stand, unfinished and failed ones too.

    The report of the workflow, results/report/index.html, is of the runs that config.yaml lists.

    Args:
        results: the directory of runs.
        output: where the report goes.
    """
    from nanogpt.report.page import write_report
    from nanogpt.report.runs import find_runs

    print(f"{write_report(find_runs(results), output)}: {output / 'index.html'}")


@app.command
def watch(
    results: Path = Path("results"), host: str = "localhost", port: int = 6006, every: float = 5.0
) -> None:
    """Show the curves of all runs in TensorBoard, those of trainings that go on as they grow.

    Args:
        results: the directory of runs.
        host: where TensorBoard listens.
        port: likewise.
        every: seconds between two looks for new metrics.
    """
    from nanogpt.artifacts.signals import exiting
    from nanogpt.artifacts.states import find_metrics
    from nanogpt.report.tensorboard import append_events

    if not every > 0:
        raise UserError(f"--every: should be more than 0 (found {every:g})")
    with exiting(), tempfile.TemporaryDirectory() as directory:
        written: dict[str, int] = {}
        append_events(find_metrics(results), Path(directory), written)
        address = ["--host", host, "--port", str(port)]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", directory, *address]
        with subprocess.Popen([*command, "--reload_interval", str(every)]) as tensorboard:
            try:
                while tensorboard.poll() is None:
                    time.sleep(every)
                    append_events(find_metrics(results), Path(directory), written)
            finally:
                tensorboard.terminate()
        sys.exit(tensorboard.returncode)


@app.command(name="cache")
def show_cache(
    action: Positional[Literal["ls", "prune"]],
    config_file: Path = Path("config.yaml"),
    older_than: float | None = None,
    max_size: float | None = None,
    results: bool = False,
    yes: bool = False,
) -> None:
    """List what takes space beside the runs of config.yaml, or remove what may go.

    What may go: unfinished trainings that no config names any more, damaged artifacts, and what
    killed processes left; of finished artifacts and results, those that the options choose.

    Args:
        action: ls lists; prune says what would be removed, and with --yes removes it.
        config_file: the config file.
        older_than: prune artifacts, too, that were not used for this many days.
        max_size: prune artifacts, too, until all have this many megabytes; the last used stay.
        results: prune, too, the results of runs and datasets that config.yaml does not name.
        yes: remove.
    """
    from nanogpt.cli import pruning as storage

    for option, amount in (("--older-than", older_than), ("--max-size", max_size)):
        if amount is not None and not amount >= 0:
            raise UserError(f"{option}: should be 0 or more (found {amount:g})")
    items = storage.find_items(loading.read(config_file))
    if action == "prune":
        days = None if older_than is None else older_than * storage.DAY
        n_bytes = None if max_size is None else max_size * 1e6
        items = storage.to_prune(items, days, n_bytes, results)
    for item in items:
        unused = f" ({item.unused})" if item.unused else ""
        print(f"{_size(item.size):>9} {_age(item.age):>9} {item.kind:<9} {item.what}{unused}")
        if action == "prune" and yes:
            try:
                storage.remove(item)
            except OSError as error:
                print(f"{item.path}: cannot be removed: {error.strerror}", file=sys.stderr)
    total = f"{plural(len(items), 'item')}, {_size(sum(item.size for item in items))}"
    told = "" if action == "ls" else ", removed" if yes else "; to remove them, say --yes"
    print(total + (told if items else ""))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def _age(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return plural(int(seconds / length), unit)
    return plural(int(seconds), "second")


@app.command
def settings() -> None:
    """Print docs/SETTINGS.md: every setting with its default and meaning."""
    print(reference.settings_page(), end="")


@app.command
def schema() -> None:
    """Print the JSON schema of config.yaml, for editors."""
    _print_json(reference.json_schema())


@app.command
def version() -> None:
    """Print the version."""
    print(__version__)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends it with one line and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app.cli(prog="nanogpt", description=__doc__.partition("\n")[0], args=arguments)
    except ValidationError as error:
        sys.exit(f"error: {explain(error, Config)}")
    except UnicodeError as error:  # in a text given on the command line or to standard input
        sys.exit(f"error: not UTF-8: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")
