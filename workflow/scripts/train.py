"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

from pathlib import Path

from nanogpt.artifacts.manifests import model_among
from nanogpt.artifacts.stages import Job, Made, run_stage, shell_job
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.inference.checks import check_prompt
from nanogpt.training.loop import train
from nanogpt.training.session import milestone_files

request = shell_job()
run, dataset, made = request.params.run, request.input[0], Path(request.output[-1]).parent


def make(job: Job) -> Made:
    model, settings = job.settings("model", ModelSettings), job.settings("train", TrainSettings)
    check_prompt(run, Path(dataset).parent, request.params.untracked["sample"])
    where = {"results": made, "initial": model_among(request.input)}
    progress = train(run, Path(dataset).parent, model, settings, job.training, **where)
    return Made(progress.summary(), progress.layouts)


more = milestone_files(made, request.params.settings["train"]["milestones"])
run_stage(request, "train", make, run=run, more_outputs=more, more_directory=made / "milestones")
