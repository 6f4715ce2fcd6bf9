"""Commands about runs: config, sample, bench, report, watch."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from nanogpt.cli.app import app, print_json
from nanogpt.config.loading import read
from nanogpt.config.reference import describe_run
from nanogpt.config.resolving import check_trains, resolve_run
from nanogpt.config.schema import SampleSettings
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project


@app.command(name="config")
def show_config(run: Positional[str], config_file: Path = HERE.config_file) -> None:
    """Print what a run resolves to, and where each value is from.

    Args:
        run: name of a run, or of a dataset, or of a text in resources/texts/.
        config_file: the config file.
    """
    print(describe_run(read(config_file), run), end="")


@app.command
def sample(
    model: Positional[Path],
    settings: Annotated[SampleSettings, tyro.conf.arg(name="")] = SampleSettings(),  # noqa: B008
    ngrams: bool = True,
) -> None:
    """Draw samples from a model directory, streaming them to the terminal.

    Args:
        model: a model directory, such as results/demo/model.
        settings: how to sample.
        ngrams: mix in the n-grams that lie beside the model, if any do; --no-ngrams: the GPT alone.
    """
    from nanogpt.devices import resolve
    from nanogpt.inference.sampling import stream
    from nanogpt.model.checkpoints import load_model
    from nanogpt.model.kernels import prepare_kernels
    from nanogpt.ngram.mixing import find_ngrams

    settings = resolve(settings)
    prepare_kernels(settings.reproducible)
    checkpoint = load_model(model, settings.device)
    found = find_ngrams(model) if ngrams else None
    if found:
        print(f"{found.path}: {found.summary()}", file=sys.stderr)
    for piece in stream(checkpoint, settings, found):
        print(piece, end="", flush=True)


@app.command
def bench(run: Positional[str], config_file: Path = HERE.config_file) -> None:
    """Measure how fast this machine trains a run's model and samples from it, and print it as JSON.

    All cores compute. The workflow's rule `bench` keeps what it measures, with as many threads as
    training has, in results/<run>/bench.json, where the report finds it.

    Args:
        run: a run whose dataset was made.
        config_file: the config file.
    """
    from nanogpt.devices import resolve
    from nanogpt.evaluation.benchmark import bench as measure

    settings = resolve_run(read(config_file), run)
    check_trains(settings)
    train, sample = resolve(settings.train), resolve(settings.sample)
    dataset = Project.of(config_file).datasets / settings.dataset
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.json"
        measured = measure(run, dataset, settings.model, train, settings.bench, sample, path)
        print_json(measured.content())


@app.command
def report(results: Path = HERE.results, output: Path = HERE.results / "report/now") -> None:
    """Compare all runs that lie there as they stand, unfinished and failed ones too.

    The report of the workflow, results/report/index.html, is of the runs that config.yaml lists.

    Args:
        results: the directory of runs.
        output: where the report goes.
    """
    from nanogpt.report.page import write_report
    from nanogpt.report.runs import find_runs

    print(f"{write_report(find_runs(results, HERE), output)}: {output / 'index.html'}")


@app.command
def watch(
    results: Path = HERE.results, host: str = "localhost", port: int = 6006, every: float = 5.0
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
        append_events(find_metrics(HERE, results), Path(directory), written)
        address = ["--host", host, "--port", str(port)]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", directory, *address]
        with subprocess.Popen([*command, "--reload_interval", str(every)]) as tensorboard:
            try:
                while tensorboard.poll() is None:
                    time.sleep(every)
                    append_events(find_metrics(HERE, results), Path(directory), written)
            finally:
                tensorboard.terminate()
        sys.exit(tensorboard.returncode)
