"""Memory limits of machines and containers."""

from pathlib import Path

import pytest

from nanogpt.planning import machine
from nanogpt.planning.machine import free_disk, memory_limit

GB = 10**9


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GB and no limits. Returns the directory with its /proc and /sys files."""
    (tmp_path / "meminfo").write_text("MemTotal:        7812500 kB\nMemAvailable: 100 kB\n")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    return tmp_path


def write(groups: Path, own: str, **limits: str) -> None:
    (groups / "cgroup").write_text(own)
    for name, limit in limits.items():
        path = groups / "groups" / name.replace("__", "/").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")


def test_memory_limit_without_a_container_is_all_memory(groups: Path) -> None:
    assert memory_limit("cpu") == 8 * GB
    assert machine.free_memory() == 102_400
    write(groups, "0::/user\n", user__memory_max="max")
    assert memory_limit("cpu") == 8 * GB


def test_memory_limit_is_the_lowest_of_all_groups(groups: Path) -> None:
    write(groups, "0::/a/b\n", a__memory_max=str(2 * GB), a__b__memory_max=str(3 * GB))
    assert memory_limit("cpu") == 2 * GB


def test_container_limit_is_read_at_the_root(groups: Path) -> None:
    write(groups, "0::/../docker/1234\n", memory_max=str(GB))
    assert memory_limit("cpu") == GB


def test_control_groups_v1_are_read(groups: Path) -> None:
    write(groups, "9:cpu:/x\n4:memory:/job\n")
    place = groups / "groups/memory/job/memory.limit_in_bytes"
    place.parent.mkdir(parents=True)
    place.write_text(str(4 * GB))
    (groups / "groups/memory/memory.limit_in_bytes").write_text("9223372036854771712")
    assert memory_limit("cpu") == 4 * GB


def test_free_disk_of_a_missing_directory_is_its_parents(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "results/none") > 0
