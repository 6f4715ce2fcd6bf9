"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, shell_job, stage
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.training.loop import milestone_files, train

asked = shell_job("train")
dataset, results = Path(asked.input[0]).parent, Path(asked.output[-1]).parent


def make(job: Job) -> dict[str, object]:
    model, settings = ModelSettings(**job.settings["model"]), TrainSettings(**job.settings["train"])
    done = train(asked.params.run, dataset, model, settings, job.training, results)
    return {"summary": done.summary(), "environment": {"layouts": done.layouts}}


milestones = milestone_files(results, asked.params.settings["train"]["milestones"])
more = {"more_outputs": milestones, "more_directory": results / "milestones"}
stage(asked, make, run=asked.params.run, **more)
