"""`auto` resolves to what this machine has; a missing device is an error with advice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanogpt.config.schema import EvalSettings, SampleSettings, TrainSettings
from nanogpt.devices import autocast, resolve, resolve_device, resolve_dtype
from nanogpt.errors import UserError
from tests.inference.models import with_fbgemm

CUDA = torch.cuda.is_available()
MPS = torch.backends.mps.is_available()
CPUINFO = Path("/proc/cpuinfo")

without_cuda = pytest.mark.skipif(CUDA, reason="this machine has a CUDA device")
with_cuda = pytest.mark.skipif(not CUDA, reason="this machine has no CUDA device")


@pytest.mark.skipif(CUDA or MPS, reason="this machine has an accelerator")
def test_auto_is_the_cpu_without_a_gpu():
    assert resolve_device("auto") == "cpu"


@with_cuda
def test_auto_is_cuda_if_available():
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cuda:0") == "cuda:0"


def test_cpu_is_always_available():
    assert resolve_device("cpu") == "cpu"


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_missing_cuda_is_an_error_with_advice(device):
    with pytest.raises(UserError) as error:
        resolve_device(device)
    assert (
        str(error.value)
        == f"device {device}: this machine has no CUDA device; set device to auto or cpu"
    )


@with_cuda
def test_cuda_device_beyond_the_last_is_an_error():
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UserError, match=f"device {beyond}: .*set device to auto or cpu"):
        resolve_device(beyond)


@pytest.mark.skipif(MPS, reason="this machine has MPS")
def test_missing_mps_is_an_error_with_advice():
    with pytest.raises(UserError, match=r"device mps: .*set device to auto or cpu"):
        resolve_device("mps")


@pytest.mark.skipif(not CPUINFO.is_file(), reason="there is no /proc/cpuinfo here")
def test_auto_is_bfloat16_only_on_cpus_with_native_support():
    native = "avx512_bf16" in CPUINFO.read_text().split()
    assert resolve_dtype("auto", "cpu") == ("bfloat16" if native else "float32")


def test_auto_is_float32_if_torch_is_limited_to_avx2():
    """oneDNN would emulate bfloat16, slower than float32."""
    command = "from nanogpt.devices import resolve_dtype; print(resolve_dtype('auto', 'cpu'))"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    shown = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True
    )
    assert shown.stdout == "float32\n"


def test_auto_is_float32_on_mps():
    assert resolve_dtype("auto", "mps") == "float32"


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_explicit_dtype_is_kept(dtype, device):
    assert resolve_dtype(dtype, device) == dtype


@pytest.mark.parametrize("group", [TrainSettings, EvalSettings, SampleSettings])
def test_resolve_changes_only_device_and_dtype(group):
    settings = group(device="auto", dtype="auto", seed=5)
    resolved = resolve(settings)
    device = resolve_device("auto")
    expected = {"device": device, "dtype": resolve_dtype("auto", device)}
    assert type(resolved) is group
    assert resolved.model_dump() == settings.model_dump() | expected
    assert settings.device == settings.dtype == "auto"
    assert resolve(resolved) == resolved


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_matrix_products_use_the_dtype(dtype):
    x = torch.ones(2, 2)
    with autocast("cpu", str(dtype).removeprefix("torch.")):
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"device": "cuda"}, {"dtype": "bfloat16"}])
def test_reproducible_anywhere_rejects_other_devices_and_dtypes(wrong):
    with pytest.raises(UserError, match="`reproducible: anywhere` needs a CPU and float32"):
        resolve(SampleSettings(reproducible="anywhere", **wrong))
    group = resolve(SampleSettings(reproducible="anywhere"))
    assert (group.device, group.dtype) == ("cpu", "float32")


@with_fbgemm
def test_int8_uses_the_cpu_even_with_a_gpu():
    group = resolve(SampleSettings(dtype="int8"))
    assert (group.device, group.dtype) == ("cpu", "int8")


def test_int8_on_a_gpu_is_an_error():
    with pytest.raises(UserError, match="`dtype: int8` needs a CPU; set `device: cpu`"):
        resolve(EvalSettings(dtype="int8", device="cuda"))


def test_int8_without_torch_support_is_an_error(monkeypatch):
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["qnnpack"])
    with pytest.raises(UserError, match=r"no FBGEMM \(x86-64 CPUs only\); set dtype to float32"):
        resolve(SampleSettings(dtype="int8"))


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")],
)
def test_auto_on_cuda_is_the_fastest_native_dtype(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_dtype("auto", "cuda") == expected
