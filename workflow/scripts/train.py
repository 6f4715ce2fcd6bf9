"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

from pathlib import Path

from nanogpt.artifacts.manifests import model_among
from nanogpt.artifacts.stages import Job, Made, run_stage, shell_job
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.inference.checks import check_prompt
from nanogpt.training.distributed import Ranks
from nanogpt.training.launching import run_on_ranks
from nanogpt.training.loop import train
from nanogpt.training.session import milestone_files

request = shell_job()
run, dataset, made = request.params.run, request.input[0], Path(request.output[-1]).parent


def make(job: Job, ranks: Ranks) -> Made:
    model, settings = job.settings("model", ModelSettings), job.settings("train", TrainSettings)
    check_prompt(run, Path(dataset).parent, request.params.untracked["sample"])
    initial, tokens = model_among(request.input), Path(dataset).parent
    progress = train(run, tokens, model, settings, job.training, made, initial, ranks)
    return Made(progress.summary(), progress.layouts)


more = milestone_files(made, request.params.settings["train"]["milestones"])
kept = {"run": run, "more_outputs": more, "more_directory": made / "milestones"}
run_on_ranks(request, make, lead=lambda make_alone: run_stage(request, "train", make_alone, **kept))
