"""Choose the device and the dtype of a computation.

`auto` is replaced by a device and a dtype here, before a version is computed from them. torch is
imported late, since most callers only read settings.
"""

import platform
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nanogpt.config.schema import EvalSettings, SampleSettings, TrainSettings, check_device
from nanogpt.errors import UserError, plural

if TYPE_CHECKING:
    import torch

STATUS = Path("/proc/self/status")  # only on Linux

# A group of settings with a device and a dtype.
ComputeSettings = TypeVar("ComputeSettings", TrainSettings, EvalSettings, SampleSettings)


def resolve(settings: ComputeSettings) -> ComputeSettings:
    """Return the settings with `auto` replaced in `device` and `dtype`."""
    device, dtype = resolve_both(settings.device, settings.dtype, settings.reproducible)
    return settings.model_copy(update={"device": device, "dtype": dtype})


def resolve_both(device: str, dtype: str, reproducible: str) -> tuple[str, str]:
    """Replace `auto` in a device and a dtype. Returns both.

    Errors: UserError for a device that isn't available or that contradicts the dtype or
    `reproducible: anywhere`, and for int8 if torch doesn't support it here.
    """
    check_device(device, dtype, reproducible)
    if reproducible == "anywhere":
        return "cpu", "float32"
    if dtype == "int8":
        _check_int8()
        return "cpu", dtype
    device = resolve_device(device)
    return device, resolve_dtype(dtype, device)


def resolve_device(device: str) -> str:
    """Resolve a device. `auto` is CUDA if available, else Apple's MPS, else the CPU.

    Errors: UserError for a device that this machine or this build of torch doesn't have.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps: this machine has no MPS device; set device to auto or cpu")
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            found = plural(count, "CUDA device") if count else "no CUDA device"
            raise UserError(f"device {device}: this machine has {found}; set device to auto or cpu")
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """Resolve a dtype. `auto` is the fastest native one: bfloat16, float16 (CUDA) or float32."""
    if dtype != "auto":
        return dtype
    import torch

    if device.startswith("cuda"):
        # Before compute capability 8.0, bfloat16 is emulated and slow; before 7.0, float16 too.
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            return "float16" if capability >= (7, 0) else "float32"
        return "bfloat16"
    # An older torch can't report the CPU's features; float32 always works.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    # When limited to AVX2 (ATEN_CPU_CAPABILITY), torch emulates bfloat16.
    native = (
        device == "cpu"
        and bool(capabilities.get("avx512_bf16"))
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )
    return "bfloat16" if native else "float32"


def _check_int8() -> None:
    """Raise UserError if torch can't multiply 8-bit integers here."""
    import torch

    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise UserError(
            "dtype int8: this build of torch has no FBGEMM (x86-64 CPUs only); set dtype to float32"
        )


def is_intel() -> bool:
    """Whether the CPU is made by Intel."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    return "GenuineIntel" in text


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes.

    On Linux it's read from /proc, since `ru_maxrss` starts with the peak of the parent process.
    """
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def autocast(device: str, dtype: str) -> AbstractContextManager[object]:
    """Return a context manager in which matrix products are computed in `dtype`."""
    if dtype == "float32":
        return nullcontext()
    import torch

    return torch.autocast(torch.device(device).type, dtype=torch_dtype(dtype))


def torch_dtype(dtype: str) -> "torch.dtype":
    """Return the torch dtype of a resolved `dtype` setting."""
    import torch

    resolved: torch.dtype = getattr(torch, dtype)
    return resolved
