"""Rule train: token files in, a model and its metrics out. Started by a shell, for launchers."""

import argparse
import json
from pathlib import Path

from nanogpt.config import ModelSettings, TrainSettings
from nanogpt.stage import stage
from nanogpt.train import train

parser = argparse.ArgumentParser()
parser.add_argument("--input", nargs="+")
parser.add_argument("--output", nargs="+")
parser.add_argument("--settings", type=json.loads)
parser.add_argument("--log", nargs=1)
parser.add_argument("--threads", type=int)
for name in ("--run", "--code"):
    parser.add_argument(name)
arguments = parser.parse_args(namespace=argparse.Namespace(rule="train"))
arguments.params = arguments

with stage(arguments) as job:
    model, settings = ModelSettings(**job.settings["model"]), TrainSettings(**job.settings["train"])
    dataset, results = Path(arguments.input[0]).parent, Path(arguments.output[-1]).parent
    train(arguments.run, dataset, model, settings, job.state_directory(arguments.run), results)
