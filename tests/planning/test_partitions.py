"""What a partition can give, as `scontrol` says it; tests/cluster/ asks a real Slurm."""

import pytest

from nanogpt.errors import UserError
from nanogpt.planning import partitions

PARTITIONS = [
    {"PartitionName": "long", "MaxTime": "UNLIMITED", "Default": "NO"},
    {"PartitionName": "day", "MaxTime": "1-00:00:00", "Default": "YES"},
]
NODES = [
    {"NodeName": "a", "CPUTot": "4", "RealMemory": "64000", "Partitions": "day"},
    {"NodeName": "b", "CPUTot": "64", "RealMemory": "8000", "Partitions": "day,long"},
]


@pytest.fixture(autouse=True)
def _slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"partition": PARTITIONS, "node": NODES}
    monkeypatch.setattr(partitions, "_ask", shown.__getitem__)
    partitions._find_partitions.cache_clear()
    partitions._find_nodes.cache_clear()
    yield
    partitions._find_partitions.cache_clear()
    partitions._find_nodes.cache_clear()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *[("30:00", 30), ("2:00:00", 120), ("1-12:00:00", 2160), ("2-00:00:00", 2880)],
        *[("UNLIMITED", None), ("INFINITE", None), ("00:00:30", 0.5), ("1-12", 2160)],
    ],
)
def test_slurms_times_are_read(text: str, minutes: float | None) -> None:
    assert partitions.parse_minutes(text) == minutes


def test_what_fits_passes_in_the_default_partition_and_without_a_limit() -> None:
    day = {"runtime": 1440, "mem_mb": 64_000}
    partitions.check("train", day, 1440, 4, 1)
    partitions.check("train", {"slurm_partition": "long", "runtime": 10**6}, 10**6, 64, 1)


@pytest.mark.parametrize(
    ("resources", "threads", "message"),
    [
        ({"runtime": 1441}, 1, "partition `day` gives a job up to 1440 min, and this one asks"),
        ({"slurm_partition": "night"}, 1, "no partition `night`; set `slurm_partition` to one of"),
        ({"slurm_partition": "long", "mem_mb": 9000}, 1, "up to 8000 MB of memory"),
        ({"slurm_partition": "long"}, 65, "up to 64 processors"),
        ({"cpus_per_task": 65}, 1, "up to 64 processors"),
    ],
)
def test_what_no_node_can_give_is_an_error(resources: dict, threads: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        partitions.check("train", resources, resources.get("runtime"), threads, 1)


def test_without_slurms_answer_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_ask", lambda _: [])
    partitions._find_partitions.cache_clear()
    partitions.check("train", {"slurm_partition": "night", "runtime": 10**6}, 10**6, 999, 1)


def test_a_machine_without_scontrol_answers_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert partitions._ask("partition") == []
