"""Rule train: token files in, a model and its metrics out. Launchers can start it as a command."""

from pathlib import Path

from nanogpt.artifacts.manifests import model_among
from nanogpt.artifacts.stages import Job, Made, shell_job
from nanogpt.config.schema import ModelSettings, TrainSettings
from nanogpt.inference.checks import check_prompt
from nanogpt.training.distributed import Ranks
from nanogpt.training.launching import run_on_ranks
from nanogpt.training.loop import train

request = shell_job()
run, made = request.params.run, Path(request.output[-1]).parent
dataset, initial = Path(request.input[0]).parent, model_among(request.input)
sample = request.params.untracked["sample"]


def make(job: Job, ranks: Ranks) -> Made:
    model, settings = job.settings("model", ModelSettings), job.settings("train", TrainSettings)
    progress = train(run, dataset, model, settings, job.training, made, initial, ranks)
    return Made(progress.summary(), progress.layouts)


run_on_ranks(request, make, check=lambda _: check_prompt(run, dataset, sample))
