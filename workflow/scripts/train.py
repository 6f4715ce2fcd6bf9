"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage, shell_job
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.training.loop import milestone_files, train

job = shell_job()
run, dataset, results = job.params.run, Path(job.input[0]).parent, Path(job.output[-1]).parent


def make(request: Job) -> Made:
    model, settings = (
        request.settings("model", ModelSettings),
        request.settings("train", TrainSettings),
    )
    done = train(run, dataset, model, settings, request.training, results)
    return Made(done.summary(), done.layouts)


milestones = milestone_files(results, job.params.settings["train"]["milestones"])
more = {"more_outputs": milestones, "more_directory": results / "milestones"}
run_stage(job, "train", make, run=run, **more)
