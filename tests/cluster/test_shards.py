"""The jobs of a sharded dataset run on several nodes."""

from pathlib import Path

import yaml

from tests.cluster.calls import SLURM, finish, start_on
from tests.cluster.slurm import Cluster
from tests.data.prepared import prepare_by_groups

pytestmark = SLURM

N_TEXTS, IN_GROUP = 64, 16
# A node has two processors, so it runs one of these jobs at a time.
THREADS = ("--set-threads", "count=2", "plan=2", "encode_shard=2", "prepare_shards=2")


def write_texts(project: Path) -> list[Path]:
    """Give a project a sharded dataset of some texts; their files."""
    directory = project / "shorts"
    directory.mkdir()
    files = [directory / f"{number:02d}.txt" for number in range(N_TEXTS)]
    for number, file in enumerate(files):
        file.write_text(f"Text number {number} ends here.\n" * (number + 1))
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["corpora"]["shorts"] = {"files": "shorts"}
    config["datasets"]["shorts"] = {"shards": "always"}
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    return files


def test_two_nodes_write_the_shards_of_one_machine(
    cluster: Cluster, project: Path, tmp_path: Path
) -> None:
    files = write_texts(project)
    earlier = cluster.jobs("all")  # of other tests
    target = "results/datasets/shorts/meta.json"
    finish(start_on(cluster, project, target, options=THREADS), project)
    jobs = [cluster.show(job) for job in cluster.jobs("all") if job not in earlier]
    encoding = [job for job in jobs if "rule_encode_shard" in job["Comment"]]
    assert len(encoding) == N_TEXTS // IN_GROUP
    assert len({job["NodeList"] for job in encoding}) == 2
    groups = [files[first : first + IN_GROUP] for first in range(0, N_TEXTS, IN_GROUP)]
    alone = prepare_by_groups(groups, tmp_path / "alone", sharded=True)
    shards = sorted(alone.glob("*.bin"))
    assert len(shards) == 2 * len(encoding)
    for shard in shards:
        there = project / "results/datasets/shorts" / shard.name
        assert there.read_bytes() == shard.read_bytes(), shard.name
