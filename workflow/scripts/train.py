"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage, shell_job
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.training.loop import train
from nanogpt.training.session import milestone_files

request = shell_job()
run = request.params.run
dataset, results = Path(request.input[0]).parent, Path(request.output[-1]).parent


def make(job: Job) -> Made:
    model, settings = job.settings("model", ModelSettings), job.settings("train", TrainSettings)
    assert job.training
    progress = train(run, dataset, model, settings, job.training, results)
    return Made(progress.summary(), progress.layouts)


milestones = milestone_files(results, request.params.settings["train"]["milestones"])
more = {"more_outputs": milestones, "more_directory": results / "milestones"}
run_stage(request, "train", make, run=run, **more)
