"""This machine's memory and disk space, and the published speeds of GPUs."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Linux only. A container's memory limits are those of its control groups.
MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
BUSY = 0.5  # running processes per processor
UNLIMITED = 1 << 60  # control groups v1 use a number near 2^63 for no limit


@dataclass(frozen=True)
class Gpu:
    """A GPU. flops_per_second: for dense 16-bit matrix products with 32-bit sums."""

    name: str
    flops_per_second: float
    memory: int  # bytes


# From NVIDIA's data sheets and architecture white papers, without sparsity, as of 2026-11.
GPUS = (
    Gpu("T4", 65e12, 16 * 10**9),
    Gpu("RTX 3090", 71e12, 24 * 10**9),
    Gpu("L4", 121e12, 24 * 10**9),
    Gpu("RTX 4090", 165e12, 24 * 10**9),
    Gpu("A100", 312e12, 80 * 10**9),
    Gpu("H100 SXM", 989e12, 80 * 10**9),
)

# The assumed share of that speed in training. Published trainings of GPT-2 with 124 million
# parameters and more reach 0.29 to 0.60 (docs/SCALING.md). Small models reach less, since their
# steps are too short to fill the GPU.
UTILISATION = 0.35


def memory_limit(device: str) -> int | None:
    """Return the memory available to a process, in bytes: of the GPU, machine or container.

    device: resolved. None if it isn't known.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    sizes = [*_read_limits(), *([total] if (total := _read_meminfo("MemTotal")) else [])]
    return min(sizes, default=None)


def free_memory() -> int | None:
    """Return the free memory in bytes; None if it isn't known."""
    return _read_meminfo("MemAvailable")


def _read_meminfo(field: str) -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == field:
                return 1024 * int(amount.split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _read_limits() -> Iterator[int]:
    """Read the memory limits of this process's control groups and their parents."""
    try:
        groups = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = GROUPS / "memory" if controllers else GROUPS
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        # In a container, the path may be the host's, and the limit may be at the root.
        place = root / path.lstrip("/")
        for directory in (place, *place.parents):
            if not directory.is_relative_to(root):
                break
            try:
                limit = int((directory / name).read_text())
            except (OSError, ValueError):  # "max" means no limit
                continue
            if limit < UNLIMITED:
                yield limit


def is_busy() -> bool:
    """Whether other processes are busy on this machine, which slows measured steps down."""
    return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def free_disk(path: Path) -> int:
    """Return the free disk space at a path, which may not exist yet, in bytes."""
    place = path.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
