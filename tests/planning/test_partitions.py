"""Requests are checked against the output of `scontrol`. tests/cluster/ uses a real Slurm."""

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


def request_for(**asked: object) -> partitions.Request:
    minutes = asked.setdefault("minutes", None)
    defaults = {"partition": "", "longest": minutes, "attempts": 1, "cpus": 1, "memory": None}
    return partitions.Request(name="train", **{**defaults, **asked})


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
def test_slurm_times_are_parsed(text: str, minutes: float | None) -> None:
    assert partitions.parse_minutes(text) == minutes


def test_fitting_request_passes() -> None:
    partitions.check(request_for(minutes=1440, memory=64_000, cpus=4))
    partitions.check(request_for(partition="long", minutes=10**6, cpus=64))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"minutes": 1441}, "requests 1441 min, but partition `day` allows 1440 min"),
        ({"minutes": 1440, "longest": 2880, "attempts": 2}, "requests 2880 min in attempt 2, but"),
        ({"partition": "night"}, "no partition `night`; set `slurm_partition` to one of"),
        ({"partition": "long", "memory": 9000}, "partition `long` has 8000 MB or less"),
        ({"partition": "long", "cpus": 65}, "partition `long` has 64 or fewer"),
        ({"partition": "long", "nodes": 99}, "requests 99 nodes, but partition `long` has "),
    ],
)
def test_request_beyond_all_nodes_is_an_error(asked: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        partitions.check(request_for(**asked))


def test_nothing_is_checked_without_an_answer_from_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_ask", lambda _: [])
    partitions._find_partitions.cache_clear()
    partitions.check(request_for(partition="night", minutes=10**6, cpus=999))


def test_machine_without_scontrol_gives_no_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert partitions._ask("partition") == []
