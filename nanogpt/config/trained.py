"""Where the model of a run lies, for those who name the run or a directory."""

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
    """A model directory, and the run that it's of, or an empty string.

    name: a run, or a model directory. A run comes first; `./name` is the directory in any case.

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
        if is_model:  # a config.yaml of something else must not be in its way
            return path, ""
        raise
    run = str(name)
    if run in (*run_names(config), *config.sweep_of.values()):
        resolve_run(config, run)  # UserError for a sweep
        return model_of_run(run, project), run
    if is_model:
        return path, ""
    known = [*run_names(config), *config.sweep_of.values()]
    raise UserError(f"{run}: no model here, and no run `{run}`{did_you_mean(run, known)}")


def model_of_run(run: str, project: Project = HERE) -> Path:
    """The model directory of a run."""
    return project.results / run / "model"


def check_model(directory: Path, run: str) -> None:
    """UserError if a run has no model yet, or if a directory is a run's or another program's."""
    if run and not (directory / CONFIG_NAME).is_file():
        raise UserError(f"{directory}: no model yet; train it: `nanogpt train {run}`")
    check_program(directory)


def check_program(directory: Path) -> None:
    """UserError for the directory of a run, or for another program's model."""
    config_file = directory / CONFIG_NAME
    if not config_file.is_file() and (directory / "model" / CONFIG_NAME).is_file():
        raise UserError(f"{directory}: no model here, but in {directory / 'model'}; name that")
    for program, name, is_its in (
        ("transformers", "huggingface", _is_of_transformers(config_file)),
        ("nanoGPT", "nanogpt", (directory / "ckpt.pt").is_file()),
    ):
        if is_its:
            raise UserError(
                f"{directory}: a model of {program}; first "
                f"`nanogpt import {directory} DESTINATION --from {name}`, then name DESTINATION"
            )


def _is_of_transformers(config_file: Path) -> bool:
    """Whether a config.json is one that transformers writes."""
    try:
        config = read_json(config_file)
    except (OSError, ValueError):
        return False  # reported where it's read
    theirs = {"architectures", "model_type"}
    return isinstance(config, dict) and is_foreign(config) and not theirs.isdisjoint(config)
