"""Where and how exactly numbers are computed: device, precision, threads.

`auto` becomes a device and a dtype here, before a version is computed from them.
"""

import contextlib
from typing import Any

import torch

from nanogpt.errors import UserError, plural


def resolve_device(device: str) -> str:
    """The device that `device` names: `auto` is CUDA, else Apple's MPS, else the CPU.

    Errors: UserError for a device that this machine or this build of torch lacks.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps: there is none here; set device to auto or cpu")
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            found = plural(count, "CUDA device") if count else "no CUDA device"
            raise UserError(f"device {device}: {found} here; set device to auto or cpu")
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """`auto` is bfloat16 where the device computes in it natively, else float32."""
    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        # Emulated before compute capability 8.0, and slow.
        native = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        # An older torch cannot tell; float32 is right everywhere.
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = device == "cpu" and bool(capabilities.get("avx512_bf16"))
    return "bfloat16" if native else "float32"


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    """A group of settings with `device` and `dtype` resolved."""
    device = resolve_device(settings["device"])
    return {**settings, "device": device, "dtype": resolve_dtype(settings["dtype"], device)}


def layout(device: str) -> dict[str, Any]:
    """What touches the last bits of a result without being asked for."""
    on_cuda = device.startswith("cuda")
    return {
        "device": device.partition(":")[0],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(device) if on_cuda else None,
    }


def autocast(device: str, dtype: str) -> contextlib.AbstractContextManager[Any]:
    """A context in which matrix products are computed in `dtype`."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
