"""Commands about runs: config, sample, bench, report, watch."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, named, optional, print_json
from nanogpt.cli.finding import check_dataset, find_base, find_model
from nanogpt.cli.flags import FlagValues, given_by, with_flags
from nanogpt.cli.parameters import check_port
from nanogpt.cli.workflow import make
from nanogpt.config.loading import read
from nanogpt.config.reference import describe_run
from nanogpt.config.resolving import check_trains
from nanogpt.config.schema import SampleSettings
from nanogpt.config.trained import check_model
from nanogpt.config.variants import parse, resolve_with
from nanogpt.errors import UserError
from nanogpt.project import HERE, Project


@app.command(name="config")
@examples("config", "nanogpt config shakespeare_char", "nanogpt config train_gpt2")
def show_config(
    run: Annotated[Positional[str], named("RUN")], config_file: Path = HERE.config_file
) -> None:
    """Print a run's settings, and where each value comes from.

    Args:
        run: a run or a dataset of config.yaml, a text in resources/texts/, or a nanoGPT preset
            such as train_gpt2.
        config_file: the config file.
    """
    config = read(config_file)
    print(describe_run(config, find_base(config, run, "").run), end="")


@app.command
@examples(
    "sample",
    'nanogpt sample shakespeare_char --start="ROMEO:"',
    'nanogpt sample --dataset=novel --start="The old" --max_new_tokens=100',
    "nanogpt sample results/demo/model --temperature=0.5 --num_samples=2",
)
@with_flags("sample")
def sample(
    model: Annotated[Positional[str], optional("[MODEL]")] = "",
    *,
    flags: FlagValues,
    dataset: Annotated[str, optional("DATASET")] = "",
    ngrams: bool = True,
) -> None:
    """Print samples from a model as they are generated. Nothing is saved.

    The defaults below are for a model directory. For a run, they are the run's settings.

    Args:
        model: a run, or a model directory such as results/demo/model.
        dataset: without a model: use the model trained most recently on this dataset.
        ngrams: mix in the model's n-grams, if it has any.
    """
    directory, run = find_model(model, dataset)
    if model and dataset and not run:
        raise UserError(
            f"--dataset={dataset}: can't be used with a model directory, since it selects a model; "
            "remove it"
        )
    if model and dataset:
        check_dataset(read(HERE.config_file), run, dataset)
    check_model(directory, run)
    given = given_by("sample", flags)
    if run:
        settings = resolve_with(read(HERE.config_file), run, given).sample
    else:
        changes = {one.setting: one.value for one in parse(given, {"sample": SampleSettings()})}
        settings = SampleSettings().model_copy(update=changes)
    if not model:
        print(f"{directory}: the model trained most recently on {dataset}", file=sys.stderr)
    from nanogpt.devices import resolve
    from nanogpt.inference.sampling import stream
    from nanogpt.model.checkpoints import load_model
    from nanogpt.model.kernels import prepare_kernels
    from nanogpt.ngram.mixing import find_ngrams

    if settings.temperature == 0 and settings.num_samples > 1:
        print(
            "temperature 0: all samples of a prompt are the same; use --num_samples=1 for just one",
            file=sys.stderr,
        )
    settings = resolve(settings)
    prepare_kernels(settings.reproducible)
    checkpoint = load_model(directory, settings.device)
    found = find_ngrams(directory) if ngrams else None
    if found:
        print(f"{found.path}: {found.summary()}", file=sys.stderr)
    for piece in stream(checkpoint, settings, found):
        print(piece, end="", flush=True)


@app.command
@examples(
    "bench",
    "nanogpt bench",
    "nanogpt bench shakespeare_char --device=cpu --steps=5",
    "nanogpt bench nanogpt_bench",
)
@with_flags("bench")
def bench(
    run: Annotated[Positional[str], optional("[RUN]")] = "",
    *,
    flags: FlagValues,
    dataset: Annotated[str, optional("DATASET")] = "",
    config_file: Path = HERE.config_file,
) -> None:
    """Measure the speed of training and sampling on this machine, and print it as JSON.

    It uses all cores. Flags change the settings, without making a run. The workflow's rule `bench`
    measures with the threads of training instead, and writes results/<run>/bench.json for the
    report.

    Args:
        run: a run; if not given, the first one of the report. nanogpt_bench has the settings of
            nanoGPT's bench.py, which are meant for a GPU.
        dataset: the dataset to measure with.
        config_file: the config file.
    """
    from nanogpt.devices import resolve
    from nanogpt.evaluation.benchmark import bench as measure

    config, project = read(config_file), Project.of(config_file)
    if not (run or dataset) and config.report.runs:
        run = config.report.runs[0]
        print(f"bench: measuring {run}, the first run of the report", file=sys.stderr)
    base = find_base(config, run, dataset)
    settings = resolve_with(config, base.run, [*base.given, *given_by("bench", flags)])
    check_trains(settings)
    directory = project.datasets / settings.dataset
    if project == HERE and not (directory / "meta.json").exists():
        code = make([str(directory / "meta.json")], "all")
        if code:
            sys.exit(code)
    training, sampling = resolve(settings.train), resolve(settings.sample)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "bench.json"
        measured = measure(
            base.run, directory, settings.model, training, settings.bench, sampling, path
        )
        print_json(measured.content())


@app.command
@examples("report", "nanogpt report", "nanogpt report --output=../compared")
def report(results: Path = HERE.results, output: Path = HERE.results / "report/now") -> None:
    """Write a report on all existing runs, including unfinished and failed ones.

    The workflow's own report, results/report/index.html, has only the runs that config.yaml lists.

    Args:
        results: the directory of the runs.
        output: the directory for the report.
    """
    from nanogpt.report.page import write_report
    from nanogpt.report.runs import find_runs

    print(f"{write_report(find_runs(results, HERE), output)}: {output / 'index.html'}")


@app.command
@examples("watch", "nanogpt watch", "nanogpt watch --host=0.0.0.0 --port=6007")
def watch(
    results: Path = HERE.results, host: str = "localhost", port: int = 6006, every: float = 5.0
) -> None:
    """Show the loss curves of all runs in TensorBoard, with live updates of running trainings.

    Args:
        results: the directory of the runs.
        host: the address that TensorBoard listens on; 0.0.0.0: all addresses of this machine.
        port: the port that it listens on.
        every: seconds between updates.
    """
    from nanogpt.artifacts.signals import exiting
    from nanogpt.artifacts.states import find_metrics
    from nanogpt.report.tensorboard import append_events

    if not every > 0:
        raise UserError(f"--every: should be more than 0 (found `{every:g}`)")
    check_port(port)
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
