"""How processes become the ranks of one training: by torchrun, by srun, or started from here.

torchrun and srun tell each process its number. Where neither did and several processes are asked
for, torch starts them on this machine. Rank 0 then does all that a stage does, with the lock and
the cache, and the others wait until there is something to train.
"""

import hashlib
import logging
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from nanogpt.artifacts.code_digest import code_digest
from nanogpt.artifacts.stages import Job, Made, WorkflowJob, following, run_stage
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.schema import TrainSettings
from nanogpt.errors import LostRankError, UserError, plural
from nanogpt.project import (
    HERE,
    Start,
    rank_timeout,
    set_meeting_place,
    set_threads_of_ranks,
    start_of_rank,
)
from nanogpt.training.distributed import ALONE, Ranks
from nanogpt.training.session import MILESTONES, milestone_files
from nanogpt.training.state_files import LATE, WAIT, wait_for_file

logger = logging.getLogger(__name__)

TIME_TO_SAVE = 600  # seconds that ranks have for saving their state after a signal to stop
# Of Slurm's steps: below those that Linux gives to clients.
FIRST_PORT, N_PORTS = 20_000, 12_000
# Keys of what ranks share: what rank 0 trains (empty: it was made already), and how many know.
VERSION, KNOWING = "version", "knowing"


def run_on_ranks(
    request: WorkflowJob,
    make: Callable[[Job, Ranks], Made],
    check: Callable[[Mapping[str, str]], None],
) -> None:
    """Run stage `train` in one process, or in as many as are asked for.

    request.processes: how many to start here, unless torchrun or srun started them. make: called by
    all ranks if there is something to train. check: see `run_stage`, which rank 0 alone calls.
    """
    made = Path(request.output[-1]).parent
    lead = partial(
        run_stage,
        request,
        "train",
        check=check,
        run=request.params.run,
        more_outputs=milestone_files(made, request.params.settings["train"]["milestones"]),
        more_directory=made / MILESTONES,
    )
    start = start_of_rank()
    if start is None and request.processes > 1:
        sys.exit(_start_here(request))
    if start is None:
        lead(lambda job: make(job, ALONE))
        return
    request.threads = max(1, request.threads // start.n_here)
    with following(request, "train", start.rank):
        store = _meet(start)
    if start.rank == 0:
        lead(lambda job: make(job, _join(start, store, job, request.sharded)))
        if not store.check([VERSION]):
            _tell_nothing_to_train(start, store)
        return
    with following(request, "train", start.rank) as make_job:
        version = _wait_for_version(start, store)
        if version:
            _wait_for_inputs(request.input, start)
            job = make_job(version, TrainingState(HERE.states / version, version))
            make(job, _join(start, store, job, request.sharded))


def _start_here(request: WorkflowJob) -> int:
    """Start the ranks on this machine, as torchrun does; they share the threads of the job.

    Returns 0, or the exit code of the first that failed.
    """
    processes = request.processes
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What it says of a process that ends is said below, in a line.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    # Otherwise it says that it sets 1.
    set_threads_of_ranks(max(1, request.threads // processes))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        run_id=secrets.token_hex(8),
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=TIME_TO_SAVE,
    )
    try:
        elastic_launch(config, sys.executable)(*sys.argv)
    except SignalException as stopped:
        # It came after the last step if rank 0 has made all outputs. Snakemake had removed them.
        is_made = all(Path(path).exists() for path in request.output)
        return 0 if is_made else 128 + stopped.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:  # it has said why
            return failure.exitcode
        ended_by = signal.Signals(-failure.exitcode)
        print(
            f"error: rank {rank} of {processes} was ended by {ended_by.name}; the training goes on "
            "where it was saved if it's started again",
            file=sys.stderr,
        )
        return 128 + ended_by
    return 0


# --- Where the others are -------------------------------------------------------------------


def _meet(start: Start) -> Store:
    """What the ranks share a few words through, once all of them are there.

    Errors: UserError, with the address, if they don't come.
    """
    host, port = start.meeting_place or (
        _address_of_first_node(start.slurm_nodes),
        _port_of_step(start.slurm_job, start.slurm_step),
    )
    set_meeting_place(start, host, port)
    store: Store
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=rank_timeout())))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"rank {start.rank} of {start.n} on {socket.gethostname()}: not all ranks met at "
            f"{host}:{port} within {rank_timeout():.0f} seconds; see whether they run, and whether "
            f"their nodes reach that address ({str(error).splitlines()[0]})"
        ) from None
    return store


def _port_of_step(job: int, step: int) -> int:
    """Where the ranks of a step meet; steps of one job, or of the next jobs, may share its node."""
    return FIRST_PORT + (61 * job + step) % N_PORTS


def _address_of_first_node(nodes: str) -> str:
    """The address of the node where srun started rank 0. Its name need not be known to others."""
    name = _ask_slurm("show", "hostnames", nodes).split()[0]
    found = re.search(r"\bNodeAddr=(\S+)", _ask_slurm("--oneliner", "show", "node", name))
    return found[1] if found else name


def _ask_slurm(*words: str) -> str:
    try:
        return subprocess.run(
            ["scontrol", *words], check=True, capture_output=True, text=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"scontrol {' '.join(words)}: failed ({error}), so rank 0 can't be found; put Slurm's "
            "commands on PATH on all nodes"
        ) from None


def _tell_nothing_to_train(start: Start, store: Store) -> None:
    """Tell the other ranks that there is nothing to train, and wait until they know.

    Under srun, what they share ends with this process.
    """
    store.set(VERSION, "")
    deadline = time.monotonic() + LATE
    while store.add(KNOWING, 0) < start.n - 1 and time.monotonic() < deadline:
        time.sleep(WAIT)


def _wait_for_version(start: Start, store: Store) -> str:
    """The version of what is to be trained; an empty string if it's made already."""
    while True:
        try:
            if store.check([VERSION]):
                version = str(store.get(VERSION), "utf-8")
                store.add(KNOWING, 1)
                return version
        except RuntimeError:
            raise LostRankError(
                f"rank {start.rank} of {start.n}: rank 0 has ended; its log says why"
            ) from None
        time.sleep(WAIT)


def _wait_for_inputs(paths: Sequence[str], start: Start) -> None:
    """Wait until this node sees all that rank 0 has read.

    Errors: UserError if it doesn't.
    """
    for path in paths:
        if not wait_for_file(HERE.root / path):
            raise UserError(
                f"rank {start.rank} of {start.n} on {socket.gethostname()}: {path} isn't there "
                f"after {LATE:.0f} seconds, but is on the node of rank 0; the project must be on a "
                "disk that all nodes share"
            )


def _join(start: Start, store: Store, job: Job, is_sharded: bool = False) -> Ranks:
    """Begin a training with all ranks: the same code, and a disk that all of them see.

    Errors: UserError where that isn't so.
    """
    assert job.training
    if start.rank == 0:
        store.set(VERSION, job.version)
    device = str(job.settings("train", TrainSettings).device)
    ranks = Ranks(start.rank, start.n, start.local_rank, is_sharded)
    with ranks.talking():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
            store=store,
            rank=start.rank,
            world_size=start.n,
            timeout=timedelta(seconds=rank_timeout()),
        )
    _check_code(ranks)
    _check_disk(ranks, job.training.directory)
    logger.info("rank %d of %d on %s", start.rank, start.n, socket.gethostname())
    return ranks


def _check_code(ranks: Ranks) -> None:
    """UserError if ranks run different code, or different versions of torch."""
    digest = code_digest(Path(sys.argv[0]))
    mine = int(hashlib.sha256(f"{digest} {torch.__version__}".encode()).hexdigest()[:15], 16)
    found = [number for (number,) in ranks.gather(mine)]
    others = [rank for rank, number in enumerate(found) if number != found[0]]
    if others:
        raise UserError(
            f"rank {ranks.rank} on {socket.gethostname()} with torch {torch.__version__}: "
            f"{plural(len(others), 'rank')} of {ranks.n}, the first of them rank {others[0]}, "
            "run other code or another torch than rank 0; start all nodes from one checkout and "
            "one environment"
        )


def _check_disk(ranks: Ranks, directory: Path) -> None:
    """UserError if a rank doesn't see a file that rank 0 wrote into a directory."""
    (token,) = ranks.gather(secrets.randbits(60))[0]
    path = directory / f".seen-by-all.{token:x}.tmp"
    if ranks.is_main:
        path.touch()
    (blind,) = ranks.largest(0 if wait_for_file(path) else ranks.rank)
    if ranks.is_main:
        path.unlink()
    if blind:
        raise UserError(
            f"rank {blind} of {ranks.n}: what rank 0 writes into {directory} isn't there after "
            f"{LATE:.0f} seconds; the project must be on a disk that all nodes share"
        )
