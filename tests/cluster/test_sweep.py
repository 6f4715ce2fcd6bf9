"""A sweep of twenty runs on two nodes, whose Snakemake is killed midway."""

import signal
from pathlib import Path

import yaml

from tests.cluster.calls import PATIENCE, SLURM, finish, start_on
from tests.cluster.slurm import Cluster
from tests.faults import attacks

pytestmark = SLURM

SEEDS = 20
RUNS = [f"tiny.seed-{seed}" for seed in range(1, SEEDS + 1)]


def write_sweep(project: Path) -> list[str]:
    """Give a project twenty runs that take a moment each; the files that they leave."""
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["defaults"]["train"]["max_iters"] = 30
    config["runs"]["tiny"] = {"dataset": "play", "sweep": {"seed": list(range(1, SEEDS + 1))}}
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    return [f"results/{run}/metrics.jsonl" for run in RUNS]


def test_a_sweep_is_finished_after_its_snakemake_was_killed(
    cluster: Cluster, project: Path
) -> None:
    targets = write_sweep(project)
    first = start_on(cluster, project, *targets)
    manifests = [project / f"results/{run}/train.manifest.json" for run in RUNS]

    def done() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in manifests if path.exists()}

    attacks.wait_until(lambda: len(done()) >= 5, "five runs done", timeout=PATIENCE)
    attacks.send(first.process.pid, signal.SIGKILL)
    first.end()
    before = done()
    assert len(before) < SEEDS
    attacks.unlock(project)
    # While jobs of the first call still wait in the queue, or run.
    printed = finish(start_on(cluster, project, *targets), project)
    assert "Trying to restart" not in printed
    after = done()
    assert len(after) == SEEDS
    weights = {(project / f"results/{run}/model/model.safetensors").read_bytes() for run in RUNS}
    assert len(weights) == SEEDS
    attacks.wait_until(lambda: not attacks.processes(project), "no process left", PATIENCE)
    assert attacks.litter(project) == []
    assert not list(project.glob(".nanogpt/state/*"))
