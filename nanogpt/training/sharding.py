"""Shard a model over the ranks with torch's FSDP2, for models that are too large for one device.

Each rank keeps 1/n of each parameter, its gradient and its moments, split along the first dimension
in the order of the ranks. A block's parameters are gathered only while the block is computed, so
all ranks must take part in every forward pass.
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from nanogpt.config.schema import TrainSettings
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.training.distributed import Ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def check_sharding(settings: TrainSettings, ranks: Ranks, run: str) -> None:
    """Raise UserError for settings that don't work with a sharded model."""
    n_rows = settings.batch_size * settings.gradient_accumulation_steps
    flaws = {
        "`reproducible: anywhere`; set `reproducible: machine`": settings.reproducible
        == "anywhere",
        "`optimizer: muon`; set `optimizer: adamw`": settings.optimizer == "muon",
        "`dtype: float16`; set `dtype: bfloat16`": settings.dtype == "float16",
        "`compile: true`; set `compile: false`": settings.compile,
        f"{ranks.n} processes and {n_rows} rows in a step; use a number of processes that divides "
        "the number of rows": n_rows % ranks.n,
    }
    for flaw, has_it in flaws.items():
        if has_it:
            raise UserError(f"{run}: `sharded` doesn't work with {flaw}")


def shard(model: GPT, device: str, ranks: Ranks) -> None:
    """Shard a model from the CPU over the devices of all ranks."""
    # Imported here and below, because it takes half a second that other trainings don't need.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    # The warning is about changing a view of the logits in place, which we never do.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(torch.device(device).type, (ranks.n,))
    for module in (*model.h, model):
        fully_shard(module, mesh=mesh)
        assert isinstance(module, FSDPModule)
        # Each rank's loss is already its share of the mean, so gradients are summed.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    for name in ("hidden", "head"):  # these are called directly too, not only forward
        register_fsdp_forward_method(model, name)
    model.to(device)


def whole(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Gather whole tensors on rank 0's CPU, one after another; the other ranks get none.

    All ranks must call this if the tensors are sharded.
    """
    found = {}
    for name, tensor in tensors.items():
        full = whole_of(tensor)
        if ranks.is_main:
            found[name] = full.detach().cpu().clone()
    return found


def whole_of(tensor: Tensor) -> Tensor:
    """Gather a whole tensor. All ranks must call this."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def part_of(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, or all of it if it isn't sharded."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def like(full: Tensor, parameter: Tensor) -> Tensor:
    """Move a whole tensor to a parameter's device, and shard it if the parameter is sharded."""
    if not _is_sharded(parameter) or full.dim() == 0:
        return full.to(parameter.device)
    from torch.distributed.tensor import DTensor

    mesh = parameter.device_mesh
    parts = full.chunk(mesh.size(), dim=0)
    rank = mesh.get_local_rank()
    mine = parts[rank] if rank < len(parts) else full[:0]
    return DTensor.from_local(
        mine.to(part_of(parameter).device),
        mesh,
        parameter.placements,
        run_check=False,
        shape=full.shape,
        stride=full.stride(),
    )


def _is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is a DTensor, without importing that class."""
    return hasattr(tensor, "to_local")
