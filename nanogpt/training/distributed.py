"""Several processes that train one model: the ranks, and what they tell each other.

Every rank has the whole model and computes the gradient of its share of a step's rows. The sum of
the gradients is taken over one flat buffer, in the order of the parameters, so that its bits depend
on nothing but the number of ranks. Each parameter is updated by one rank, its owner, which alone
has the optimizer's moments for it (ZeRO-1, https://arxiv.org/abs/1910.02054) and then sends it to
the others.

How processes become ranks is in launching.py.
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
    """This process among the n that train one model; rank 0 writes the results.

    local_rank: its number among those on its node. is_sharded: whether each has a part of the
    model instead of all of it; see sharding.py.

    With one rank, each method returns what it was given, and nothing is sent. All ranks must call
    the same methods in the same order. A method raises LostRankError if another rank has ended, or
    doesn't answer in time.
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
        """The device of this rank, where the settings say `device`: a GPU for each.

        Errors: UserError for a rank without a GPU.
        """
        if self.n == 1 or not device.startswith("cuda"):
            return device
        n_gpus = torch.cuda.device_count()
        # Slurm may show each process just the GPU that it was given.
        index = 0 if n_gpus == 1 else self.local_rank
        found = [number for (number,) in self.gather(_gpu(index) if index < n_gpus else NO_GPU)]
        if index < n_gpus and found.count(found[self.rank]) > 1:
            others = [r for r, gpu in enumerate(found) if gpu == found[self.rank]]
            raise UserError(
                f"ranks {', '.join(map(str, others))} of {self.n} have the same GPU; start fewer "
                "processes there, or ask for more GPUs"
            )
        if index >= n_gpus:
            raise UserError(
                f"rank {self.rank} of {self.n}: no GPU is left for it: it's process "
                f"{self.local_rank + 1} on {socket.gethostname()}, which has "
                f"{plural(n_gpus, 'GPU')} to give; start fewer processes there, or ask for more"
            )
        torch.cuda.set_device(index)  # NCCL and FSDP2 ask for the present one
        return f"cuda:{index}"

    @property
    def share(self) -> slice:
        """What this rank takes of rows or windows; the shares' sizes differ by one at most."""
        return slice(self.rank, None, self.n)

    def largest(self, *numbers: int) -> list[int]:
        """For each number, the largest that any rank gave."""
        if self.n == 1:
            return list(numbers)
        shared = torch.tensor(numbers)
        with self.talking():
            dist.all_reduce(shared, dist.ReduceOp.MAX)
        return shared.tolist()

    def sums(self, *numbers: float) -> list[float]:
        """For each number, the sum over the ranks, in float64."""
        if self.n == 1:
            return list(numbers)
        shared = torch.tensor(numbers, dtype=torch.float64)
        with self.talking():
            dist.all_reduce(shared)
        return shared.tolist()

    def gather(self, *numbers: int) -> list[list[int]]:
        """The numbers of all ranks, in their order."""
        if self.n == 1:
            return [list(numbers)]
        mine = torch.tensor(numbers)
        all_of_them = [torch.empty_like(mine) for _ in range(self.n)]
        with self.talking():
            dist.all_gather(all_of_them, mine)
        return [numbers.tolist() for numbers in all_of_them]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.largest(0)

    def add_gradients(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Make each gradient, and the loss that is returned, the sum over the ranks."""
        if self.n == 1:
            return loss
        if self.is_sharded:  # the backward pass has added them
            return torch.tensor(self.sums(loss.item())[0])
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert len(gradients) == len(parameters)
        flat = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
        with self.talking():
            dist.all_reduce(flat)
        _take_apart(flat[1:], gradients)
        return flat[0]

    def own(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Those of the parameters that this rank updates, or has a part of."""
        if self.is_sharded:
            return list(parameters)
        of_each = zip(parameters, owners(parameters, self.n), strict=True)
        return [parameter for parameter, owner in of_each if owner == self.rank]

    def keep_own(self, parameters: Sequence[Tensor]) -> None:
        """Drop the gradients of others' parameters, so that the optimizer leaves those alone."""
        if self.n == 1:
            return
        own = {id(parameter) for parameter in self.own(parameters)}
        for parameter in parameters:
            if id(parameter) not in own:
                parameter.grad = None

    @torch.no_grad()
    def send_own(self, parameters: Sequence[Tensor]) -> None:
        """Send the parameters that this rank has updated to the others, and take theirs."""
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
        """Make tensors of one dtype equal to those of rank `source`."""
        if self.n == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self.talking():
            dist.broadcast(flat, source)
        if self.rank != source:
            _take_apart(flat, tensors)

    @contextlib.contextmanager
    def talking(self) -> Iterator[None]:
        """Inside, torch's error of a rank that has ended or doesn't answer is a LostRankError."""
        try:
            yield
        except RuntimeError as error:
            raise LostRankError(
                f"rank {self.rank} of {self.n}: another rank has ended or doesn't answer; the "
                f"training goes on where it was saved if it's started again ({_first_line(error)})"
            ) from None


ALONE = Ranks()
NO_GPU = -1


def _take_apart(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a flat buffer to the tensors that it was joined from."""
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))


def _gpu(index: int) -> int:
    """A number for a GPU, the same for every process that sees it."""
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    return int(hashlib.sha256(uuid.encode()).hexdigest()[:15], 16)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters, in the order of the optimizer's groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def owners(parameters: Sequence[Tensor], n: int) -> Sequence[int]:
    """For each parameter the rank that updates it, of n: the same on every rank."""
    return _share_out(tuple(parameter.shape for parameter in parameters), n)


@cache  # asked for in every step
def _share_out(shapes: tuple[torch.Size, ...], n: int) -> tuple[int, ...]:
    """Owners of parameters with these shapes.

    From the largest on, each goes to the rank with the least to do. To make a matrix (m, n)
    orthogonal takes time as m n min(m, n).
    """
    to_do = [0] * n
    found = [0] * len(shapes)
    costs = [shape.numel() * (min(shape) if len(shape) == 2 else 1) for shape in shapes]
    for place in sorted(range(len(shapes)), key=lambda place: (-costs[place], place)):
        found[place] = to_do.index(min(to_do))
        to_do[found[place]] += costs[place]
    return tuple(found)


def _first_line(error: Exception) -> str:
    """What torch says, without its source files, its advice and its stack."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    line = line.partition(". This is ")[0]
    return line.rpartition("] ")[2] if line.startswith("[") and "] " in line else line
