"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage, shell_job
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.inference.checks import check_prompt
from nanogpt.training.loop import train
from nanogpt.training.session import milestone_files

request = shell_job()
dataset, results = Path(request.input[0]).parent, Path(request.output[-1]).parent


def make(job: Job) -> Made:
    model, settings = job.settings("model", ModelSettings), job.settings("train", TrainSettings)
    check_prompt(request.params.run, dataset, request.params.untracked["sample"])
    assert job.training
    progress = train(request.params.run, dataset, model, settings, job.training, results)
    return Made(progress.summary(), progress.layouts)


milestones = milestone_files(results, request.params.settings["train"]["milestones"])
more = {"more_outputs": milestones, "more_directory": results / "milestones"}
run_stage(request, "train", make, run=request.params.run, **more)
