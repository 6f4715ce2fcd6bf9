"""`auto` is what this machine has; what it has not is refused with advice."""

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
def test_auto_is_the_cpu_where_there_is_nothing_else():
    assert resolve_device("auto") == "cpu"


@with_cuda
def test_auto_is_cuda_where_there_is_one():
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cuda:0") == "cuda:0"


def test_the_cpu_is_always_there():
    assert resolve_device("cpu") == "cpu"


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_where_there_is_none_is_refused_with_advice(device):
    with pytest.raises(UserError) as error:
        resolve_device(device)
    assert str(error.value) == f"device {device}: no CUDA device here; set device to auto or cpu"


@with_cuda
def test_a_cuda_device_beyond_the_last_is_refused():
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UserError, match=f"device {beyond}: .*set device to auto or cpu"):
        resolve_device(beyond)


@pytest.mark.skipif(MPS, reason="this machine has MPS")
def test_mps_where_there_is_none_is_refused_with_advice():
    with pytest.raises(UserError, match=r"device mps: .*set device to auto or cpu"):
        resolve_device("mps")


@pytest.mark.skipif(not CPUINFO.is_file(), reason="there is no /proc/cpuinfo here")
def test_auto_is_bfloat16_on_a_cpu_only_if_it_computes_in_it():
    native = "avx512_bf16" in CPUINFO.read_text().split()
    assert resolve_dtype("auto", "cpu") == ("bfloat16" if native else "float32")


def test_auto_is_float32_where_torch_is_held_to_avx2():
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
def test_a_named_dtype_is_taken_at_its_word(dtype, device):
    assert resolve_dtype(dtype, device) == dtype


@pytest.mark.parametrize("group", [TrainSettings, EvalSettings, SampleSettings])
def test_resolving_changes_device_and_dtype_and_nothing_else(group):
    settings = group(device="auto", dtype="auto", seed=5)
    resolved = resolve(settings)
    device = resolve_device("auto")
    expected = {"device": device, "dtype": resolve_dtype("auto", device)}
    assert type(resolved) is group
    assert resolved.model_dump() == settings.model_dump() | expected
    assert settings.device == settings.dtype == "auto"
    assert resolve(resolved) == resolved


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_matrix_products_are_computed_in_the_dtype(dtype):
    x = torch.ones(2, 2)
    with autocast("cpu", str(dtype).removeprefix("torch.")):
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"device": "cuda"}, {"dtype": "bfloat16"}])
def test_what_not_every_machine_has_is_refused_where_all_shall_agree(wrong):
    with pytest.raises(UserError, match="reproducible: anywhere computes on a CPU in float32"):
        resolve(SampleSettings(reproducible="anywhere", **wrong))
    group = resolve(SampleSettings(reproducible="anywhere"))
    assert (group.device, group.dtype) == ("cpu", "float32")


@with_fbgemm
def test_int8_is_computed_on_the_cpu_whatever_else_there_is():
    group = resolve(SampleSettings(dtype="int8"))
    assert (group.device, group.dtype) == ("cpu", "int8")


def test_int8_on_a_gpu_is_refused():
    with pytest.raises(UserError, match="dtype: int8 is computed on a CPU; set device: cpu"):
        resolve(EvalSettings(dtype="int8", device="cuda"))


def test_int8_where_torch_cannot_compute_it_is_refused(monkeypatch):
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["qnnpack"])
    with pytest.raises(UserError, match="no FBGEMM, which is for x86-64 CPUs; use float32"):
        resolve(SampleSettings(dtype="int8"))


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")],
)
def test_auto_on_cuda_is_the_fastest_that_the_card_has(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_dtype("auto", "cuda") == expected
