"""What there is to compute with: this machine's memory and disk, and published rates of GPUs."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Linux. A container's limits are those of its control groups.
MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
BUSY = 0.5  # processes that compute, for each processor
UNLIMITED = 1 << 60  # version 1 of control groups has a number near 2^63 for no limit


@dataclass(frozen=True)
class Gpu:
    """A GPU. flops_per_second: of dense 16-bit matrix products that are summed in 32 bits."""

    name: str
    flops_per_second: float
    memory: int  # bytes


# From NVIDIA's data sheets and architecture white papers, without sparsity; looked up 2026-11.
GPUS = (
    Gpu("T4", 65e12, 16 * 10**9),
    Gpu("RTX 3090", 71e12, 24 * 10**9),
    Gpu("L4", 121e12, 24 * 10**9),
    Gpu("RTX 4090", 165e12, 24 * 10**9),
    Gpu("A100", 312e12, 80 * 10**9),
    Gpu("H100 SXM", 989e12, 80 * 10**9),
)

# The share of that rate which training is taken to reach. 0.3 to 0.4 is usual for models of 100
# million parameters and more; a small model reaches less, as a step is over before the GPU is busy.
UTILISATION = 0.35


def memory_limit(device: str) -> int | None:
    """The bytes that a process may take: of a GPU's memory, or the machine's or its container's.

    device: resolved. None where it isn't known.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    sizes = [*_read_limits(), *([total] if (total := _read_meminfo("MemTotal")) else [])]
    return min(sizes, default=None)


def free_memory() -> int | None:
    """The bytes of memory that nothing else takes now; None where it isn't known."""
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
    """The limits of this process's control groups and of those around them."""
    try:
        groups = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = GROUPS / "memory" if controllers else GROUPS
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        # In a container, the path may be the host's, and the limit at the root its own.
        place = root / path.lstrip("/")
        for directory in (place, *place.parents):
            if not directory.is_relative_to(root):
                break
            try:
                limit = int((directory / name).read_text())
            except (OSError, ValueError):  # "max": none
                continue
            if limit < UNLIMITED:
                yield limit


def is_busy() -> bool:
    """Whether other processes compute here as well, which makes a measured step longer."""
    return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def free_disk(path: Path) -> int:
    """The bytes that are free where a path is, or will be."""
    place = path.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
