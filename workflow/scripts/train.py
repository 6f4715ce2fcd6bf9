"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

from pathlib import Path

from nanogpt.artifacts.manifests import model_among
from nanogpt.artifacts.stages import Job, Made, run_stage, shell_job
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.inference.checks import check_prompt
from nanogpt.training.loop import train
from nanogpt.training.session import milestone_files

request = shell_job()
run, made = request.params.run, Path(request.output[-1]).parent
dataset = Path(request.input[0]).parent


def make(job: Job) -> Made:
    model, settings = job.settings("model", ModelSettings), job.settings("train", TrainSettings)
    where = {"results": made, "initial": model_among(request.input)}
    progress = train(run, dataset, model, settings, job.training, **where)
    return Made(progress.summary(), progress.layouts)


more = milestone_files(made, request.params.settings["train"]["milestones"])
where = {"more_outputs": more, "more_directory": made / "milestones"}
sample = request.params.untracked["sample"]
run_stage(
    request, "train", make, check=lambda _: check_prompt(run, dataset, sample), run=run, **where
)
