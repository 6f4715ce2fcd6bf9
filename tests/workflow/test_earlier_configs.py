"""Going back to an earlier config restores its artifacts from the cache."""

import json
import shutil
from pathlib import Path

from tests.workflow.projects import Computed, edit_config, make, nanogpt, results, setting

KEPT = ("results/one/model/*", "results/one/metrics.jsonl", "results/one/*.json*")
TARGETS = ("results/one/samples.txt", "results/one/eval.json")


def log(project: Path, path: str) -> str:
    return (project / "results" / path).read_text()


def test_going_back_to_an_earlier_config_retrains_nothing(
    project: Path, computed: Computed, tmp_path: Path
) -> None:
    kept = (*KEPT, "results/one/samples.txt", "results/datasets/play/*.bin")
    cache = {"NANOGPT_CACHE": str(shutil.copytree(computed.cache, tmp_path / "cache"))}
    first = results(project, *kept)
    setting("runs", "one", "train", "learning_rate", value=0.002)(project)
    make(project, *TARGETS, **cache)
    weights = "results/one/model/model.safetensors"
    assert results(project, *kept)[weights] != first[weights]

    edit_config(project, lambda config: config["runs"]["one"].pop("train"))
    make(project, *TARGETS, **cache)
    assert results(project, *kept) == first, "manifests and times as well"
    for stage in ("train", "eval", "sample"):
        assert "restored from the cache" in log(project, f"one/{stage}.log")
    assert "step" not in log(project, "one/train.log")

    # A run with another name and the same settings isn't trained again either.
    setting("runs", "third", value={"dataset": "play"})(project)
    make(project, "results/third/eval.json", **cache)
    assert "restored from the cache" in log(project, "third/train.log")
    assert json.loads(log(project, "third/eval.json"))["run"] == "third"
    verified = nanogpt(project, "verify")
    assert verified.returncode == 0, verified.stdout
