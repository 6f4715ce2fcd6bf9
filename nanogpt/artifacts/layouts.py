"""Describe the hardware and setup of a training, which affect the last bits of its result."""

from nanogpt.artifacts.records.manifests import Layout


def current_layout(
    device: str, first_step: int, matmul: str | None, ranks: int = 1, *, sharded: bool = False
) -> Layout:
    """The layout of this process from `first_step` on.

    device: resolved. matmul: the library for float32 matrix products on a CPU. ranks: the number
    of processes that train the model. sharded: whether each has only a part of the model.
    """
    import torch  # imported late, as in devices.py

    on_cuda = device.startswith("cuda")
    return Layout(
        first_step=first_step,
        device=device.partition(":")[0],
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        gpu=torch.cuda.get_device_name(device) if on_cuda else None,
        matmul=matmul,
        ranks=ranks,
        sharded=sharded,
    )
