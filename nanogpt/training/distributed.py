"""Data-parallel training: the ranks that train one model, and their communication.

Every rank has the whole model and computes the gradient of its share of a step's rows. Gradients
are summed in one flat buffer, in the order of the parameters, so the bits of the sum depend only on
the number of ranks. Each parameter has one owner, which keeps the parameter's optimizer moments,
updates it, and sends it to the others (ZeRO-1, https://arxiv.org/abs/1910.02054).

launching.py turns processes into ranks.
"""

import contextlib
import hashlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor

from nanogpt.errors import LostRankError, UserError, plural


@dataclass(frozen=True)
class Ranks:
    """This process among the n that train one model. Rank 0 writes the results.

    local_rank: its number among the processes on its node. is_sharded: whether each rank has only a
    part of the model; see sharding.py.

    All ranks must call the same methods in the same order. With one rank, each method returns its
    arguments and sends nothing. A method raises LostRankError if another rank has ended or doesn't
    answer in time.
    """

    rank: int = 0
    n: int = 1
    local_rank: int = 0
    is_sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """Return this rank's device: a separate GPU if the setting `device` is cuda.

        Errors: UserError for a rank without its own GPU.
        """
        if self.n == 1 or not device.startswith("cuda"):
            return device
        n_gpus = torch.cuda.device_count()
        # Slurm may show each process only its own GPU.
        index = 0 if n_gpus == 1 else self.local_rank
        found = [number for (number,) in self.gather(_gpu(index) if index < n_gpus else NO_GPU)]
        if index < n_gpus and found.count(found[self.rank]) > 1:
            others = [r for r, gpu in enumerate(found) if gpu == found[self.rank]]
            raise UserError(
                f"ranks {', '.join(map(str, others))} of {self.n}: they share one GPU; start fewer "
                "processes on that node, or request more GPUs"
            )
        if index >= n_gpus:
            raise UserError(
                f"rank {self.rank} of {self.n}: no GPU left for process {self.local_rank + 1} on "
                f"{socket.gethostname()}, which has {plural(n_gpus, 'GPU')}; start fewer processes "
                "there, or request more GPUs"
            )
        torch.cuda.set_device(index)  # NCCL and FSDP2 ask for the present one
        return f"cuda:{index}"

    @property
    def share(self) -> slice:
        """This rank's share of rows or windows. The sizes of shares differ by at most one."""
        return slice(self.rank, None, self.n)

    def largest(self, *numbers: int) -> list[int]:
        """Return the maximum of each number over the ranks."""
        if self.n == 1:
            return list(numbers)
        shared = torch.tensor(numbers)
        with self.talking():
            dist.all_reduce(shared, dist.ReduceOp.MAX)
        return shared.tolist()

    def sums(self, *numbers: float) -> list[float]:
        """Return the sum of each number over the ranks, in float64."""
        if self.n == 1:
            return list(numbers)
        shared = torch.tensor(numbers, dtype=torch.float64)
        with self.talking():
            dist.all_reduce(shared)
        return shared.tolist()

    def gather(self, *numbers: int) -> list[list[int]]:
        """Return the numbers of all ranks, in the order of the ranks."""
        if self.n == 1:
            return [list(numbers)]
        mine = torch.tensor(numbers)
        all_of_them = [torch.empty_like(mine) for _ in range(self.n)]
        with self.talking():
            dist.all_gather(all_of_them, mine)
        return [numbers.tolist() for numbers in all_of_them]

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        self.largest(0)

    def add_gradients(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Replace each gradient by its sum over the ranks, and return the sum of the losses."""
        if self.n == 1:
            return loss
        if self.is_sharded:  # the backward pass has summed the gradients
            return torch.tensor(self.sums(loss.item())[0])
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert len(gradients) == len(parameters)
        flat = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
        with self.talking():
            dist.all_reduce(flat)
        _take_apart(flat[1:], gradients)
        return flat[0]

    def own(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters that this rank updates, or has a part of."""
        if self.is_sharded:
            return list(parameters)
        of_each = zip(parameters, owners(parameters, self.n), strict=True)
        return [parameter for parameter, owner in of_each if owner == self.rank]

    def keep_own(self, parameters: Sequence[Tensor]) -> None:
        """Drop the gradients of other ranks' parameters, so that the optimizer skips them."""
        if self.n == 1:
            return
        own = {id(parameter) for parameter in self.own(parameters)}
        for parameter in parameters:
            if id(parameter) not in own:
                parameter.grad = None

    @torch.no_grad()
    def send_own(self, parameters: Sequence[Tensor]) -> None:
        """Send this rank's updated parameters to the others, and receive theirs."""
        if self.n == 1 or self.is_sharded:
            return
        owned: list[list[Tensor]] = [[] for _ in range(self.n)]
        for parameter, owner in zip(parameters, owners(parameters, self.n), strict=True):
            owned[owner].append(parameter)
        for owner, group in enumerate(owned):
            if group:
                self.copy_from(owner, group)

    @torch.no_grad()
    def copy_from(self, source: int, tensors: Sequence[Tensor]) -> None:
        """Copy tensors, all with the same dtype, from rank `source`."""
        if self.n == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self.talking():
            dist.broadcast(flat, source)
        if self.rank != source:
            _take_apart(flat, tensors)

    @contextlib.contextmanager
    def talking(self) -> Iterator[None]:
        """Turn torch's errors about a rank that ended or doesn't answer into LostRankError."""
        try:
            yield
        except RuntimeError as error:
            raise LostRankError(
                f"rank {self.rank} of {self.n}: another rank has ended or doesn't answer "
                f"({_first_line(error)}); run the command again to resume from the last saved state"
            ) from None


ALONE = Ranks()
NO_GPU = -1


def _take_apart(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a flat buffer back to the tensors that were joined in it."""
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))


def _gpu(index: int) -> int:
    """Return a number that identifies a GPU, the same in every process."""
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    return int(hashlib.sha256(uuid.encode()).hexdigest()[:15], 16)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return all parameters, in the order of the optimizer's groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def owners(parameters: Sequence[Tensor], n: int) -> Sequence[int]:
    """Assign each parameter to one of n ranks, in the same way on every rank."""
    return _share_out(tuple(parameter.shape for parameter in parameters), n)


@cache  # asked for in every step
def _share_out(shapes: tuple[torch.Size, ...], n: int) -> tuple[int, ...]:
    """Return the owners of parameters with these shapes.

    Parameters are assigned from the most to the least expensive, each to the rank with the least
    work so far. Orthogonalizing a matrix (m, n) takes time proportional to m n min(m, n).
    """
    to_do = [0] * n
    found = [0] * len(shapes)
    costs = [shape.numel() * (min(shape) if len(shape) == 2 else 1) for shape in shapes]
    for place in sorted(range(len(shapes)), key=lambda place: (-costs[place], place)):
        found[place] = to_do.index(min(to_do))
        to_do[found[place]] += costs[place]
    return tuple(found)


def _first_line(error: Exception) -> str:
    """Return the first line of torch's message, without source files, advice and stack."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    line = line.partition(". This is ")[0]
    return line.rpartition("] ")[2] if line.startswith("[") and "] " in line else line
