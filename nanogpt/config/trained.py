"""Find the model directory that a run's name or a path refers to."""

from pathlib import Path

from nanogpt.config.foreign import is_foreign
from nanogpt.config.loading import read
from nanogpt.config.messages import did_you_mean
from nanogpt.config.resolving import resolve_run, run_names
from nanogpt.errors import UserError
from nanogpt.files.atomic import read_json
from nanogpt.project import HERE, Project

CONFIG_NAME = "config.json"


def find_model(name: str | Path, project: Project = HERE) -> tuple[Path, str]:
    """Return a model directory and the name of its run, or an empty string without a run.

    name: a run or a model directory. If both exist, it's the run; `./name` is the directory.

    Errors: UserError for a name that is neither, and for a sweep.
    """
    path = Path(name)
    is_path = len(path.parts) != 1 or str(name).startswith(".")
    if is_path or not project.config_file.exists():
        return path, ""
    is_model = (path / CONFIG_NAME).is_file()
    try:
        config = read(project.config_file)
    except UserError:
        if is_model:  # config.yaml may belong to something else
            return path, ""
        raise
    run = str(name)
    if run in (*run_names(config), *config.sweep_of.values()):
        resolve_run(config, run)  # UserError for a sweep
        return model_of_run(run, project), run
    if is_model:
        return path, ""
    known = [*run_names(config), *config.sweep_of.values()]
    raise UserError(f"no run or model directory `{run}`{did_you_mean(run, known)}")


def model_of_run(run: str, project: Project = HERE) -> Path:
    """Return the model directory of a run."""
    return project.results / run / "model"


def check_model(directory: Path, run: str) -> None:
    """Raise UserError if a run has no model yet, or a directory isn't a nanogpt model's."""
    if run and not (directory / CONFIG_NAME).is_file():
        raise UserError(f"{directory}: no model yet; train it with `nanogpt train {run}`")
    check_program(directory)


def check_program(directory: Path) -> None:
    """Raise UserError for the directory of a run, or for another program's model."""
    config_file = directory / CONFIG_NAME
    if not config_file.is_file() and (directory / "model" / CONFIG_NAME).is_file():
        raise UserError(f"{directory}: not a model directory; use {directory / 'model'}")
    for program, name, is_its in (
        ("transformers", "huggingface", _is_of_transformers(config_file)),
        ("nanoGPT", "nanogpt", (directory / "ckpt.pt").is_file()),
    ):
        if is_its:
            raise UserError(
                f"{directory}: a model of {program}, not of nanogpt; run `nanogpt import "
                f"{directory} DESTINATION --from {name}`, then use DESTINATION"
            )


def _is_of_transformers(config_file: Path) -> bool:
    """Whether a config.json looks like one of transformers."""
    try:
        config = read_json(config_file)
    except (OSError, ValueError):
        return False  # reported when it's read
    theirs = {"architectures", "model_type"}
    return isinstance(config, dict) and is_foreign(config) and not theirs.isdisjoint(config)
