"""A model sharded over the ranks, for one that's too large for a device (torch's FSDP2).

Each rank keeps an n-th of each parameter, of its gradient and of its moments: of its first
dimension, in the order of the ranks. A block's parameters are put together for as long as the block
is computed. So every forward pass is one of all ranks.
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
    """UserError for what a sharded model can't be trained with."""
    n_rows = settings.batch_size * settings.gradient_accumulation_steps
    flaws = {
        "reproducible: anywhere": settings.reproducible == "anywhere",
        "optimizer: muon; take adamw": settings.optimizer == "muon",
        "dtype: float16; take bfloat16": settings.dtype == "float16",
        "compile: true": settings.compile,
        f"{ranks.n} processes, which don't divide the {n_rows} rows of a step": n_rows % ranks.n,
    }
    for flaw, has_it in flaws.items():
        if has_it:
            raise UserError(f"{run}: a training with `sharded` can't have {flaw}")


def shard(model: GPT, device: str, ranks: Ranks) -> None:
    """Shard a model that is on the CPU over the ranks, on the device of each."""
    # Late, here and below: other trainings don't wait half a second for it.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    # Nobody changes a view of logits in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(torch.device(device).type, (ranks.n,))
    for module in (*model.h, model):
        fully_shard(module, mesh=mesh)
        assert isinstance(module, FSDPModule)
        # The loss of each rank is its share of the sum.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    for name in ("hidden", "head"):  # the model is entered by these, too
        register_fsdp_forward_method(model, name)
    model.to(device)


def whole(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Tensors with their parts put together, on rank 0's CPU, one after the other.

    The others get none. All ranks call it if the tensors are sharded.
    """
    found = {}
    for name, tensor in tensors.items():
        full = whole_of(tensor)
        if ranks.is_main:
            found[name] = full.detach().cpu().clone()
    return found


def whole_of(tensor: Tensor) -> Tensor:
    """A tensor with its parts put together. All ranks call it."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def part_of(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor: all of it, if that isn't sharded."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def like(full: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor of a parameter's shape, sharded if that is, and on its device."""
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
    """Whether a tensor is a DTensor, told without an import of that."""
    return hasattr(tensor, "to_local")
