"""Turn processes into the ranks of a training: from torchrun, from srun, or started here.

torchrun and srun give each process its rank. Without them, if several processes are requested,
torch starts them on this machine. Rank 0 then runs the stage, including the lock and the cache, and
the others wait until there's something to train.
"""

import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from nanogpt.artifacts.code_digest import code_digest
from nanogpt.artifacts.stages import Job, Made, WorkflowJob, followed_job, following, run_stage
from nanogpt.artifacts.states import TrainingState
from nanogpt.config.schema import TrainSettings
from nanogpt.errors import LostRankError, UserError
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
from nanogpt.training.state_files import LATE, WAIT, wait_for_file, wait_for_rank_0s_file

logger = logging.getLogger(__name__)

TIME_TO_SAVE = 600  # seconds for ranks to save their state after a stop signal
# Ports for Slurm's steps, below those that Linux gives to clients.
FIRST_PORT, N_PORTS = 20_000, 12_000
# Keys in the ranks' shared store: the version that rank 0 trains (empty: it exists already) and how
# many ranks know it; rank 0's job, a job that differs, how many have compared theirs, and whether
# all have; the number of a rank with the error that it has printed, and how many have seen that.
VERSION, KNOWING = "version", "knowing"
OF_MAIN, OTHER, COMPARED, ALL_COMPARED = "of main", "other", "compared", "all compared"
ERROR, SEEN = "error", "seen"
SAME_ERROR = 5.0  # seconds within which all ranks hit the same error
MOST_SHOWN = 3


def run_on_ranks(
    request: WorkflowJob,
    make: Callable[[Job, Ranks], Made],
    check: Callable[[Mapping[str, str]], None],
) -> None:
    """Run stage `train` in one process, or in as many as requested.

    request.processes: how many to start here, unless torchrun or srun started them. make: called by
    all ranks if there's something to train. check: see `run_stage`, which only rank 0 calls.
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
    try:
        start = start_of_rank()
    except UserError as error:
        sys.exit(f"error: {error}")
    if start is None and request.processes > 1:
        sys.exit(_start_here(request))
    if start is None:
        lead(lambda job: make(job, _alone(request)))
        return
    request.threads = max(1, request.threads // start.n_here)
    with _exiting_fast():
        with following(request, "train", start.rank):
            store = _meet(start)
        if start.rank == 0:
            with _printing_error(start, store):
                lead(lambda job: make(job, _join(start, store, job, request)))
            if not store.check([VERSION]):
                _tell_nothing_to_train(start, store)
        else:
            _follow(start, store, request, make)


def _follow(
    start: Start, store: Store, request: WorkflowJob, make: Callable[[Job, Ranks], Made]
) -> None:
    """Join rank 0's training, if there's something to train."""
    with following(request, "train", start.rank, partial(_is_printed, start, store)):
        _wait_for_inputs(request.input, start)
        # Rank 0 reads them at the same time. All processes of a node see the same files.
        job = followed_job(request, reads_inputs=start.local_rank == 0)
        version = _wait_for_version(start, store)
        if version:
            directory = HERE.states / version
            state = TrainingState(directory, version, partial(_check_directory, start, directory))
            job = replace(job, version=version, training=state)
            make(job, _join(start, store, job, request))


def _check_directory(start: Start, directory: Path) -> None:
    """Raise LostRankError if a directory is gone. Rank 0 then ends too: its lock is in there."""
    if not directory.is_dir():
        raise LostRankError(f"rank {start.rank} of {start.n}: {directory} was removed")


@contextmanager
def _exiting_fast() -> Iterator[None]:
    """End this process immediately on an error.

    A normal exit destroys torch's threads, which aborts some processes and may wait for other
    ranks. After a successful training, all ranks leave torch together.
    """
    try:
        yield
        if dist.is_initialized():
            dist.destroy_process_group()
        return
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


@contextmanager
def _printing_error(start: Start, store: Store) -> Iterator[None]:
    """Print rank 0's error, and let the other ranks compare theirs with it."""
    try:
        yield
    except SystemExit as end:
        if end.code != 1 and not isinstance(end.code, str):  # a signal
            raise
        line = "" if end.code == 1 else str(end.code)  # empty: the rank with the error prints it
        if line:
            print(line, file=sys.stderr, flush=True)
        with suppress(RuntimeError):  # the launcher has ended
            if store.check([VERSION]):  # the others have started
                store.set(ERROR, f"0 {line}")
                _wait(lambda: store.add(SEEN, 0) == start.n - 1, SAME_ERROR)
        sys.exit(1)


def _is_printed(start: Start, store: Store, error: UserError) -> bool:
    """Return whether another rank prints the same error, now or in a moment.

    If rank 0 hangs, the first of the other ranks prints its error.
    """
    is_loss = isinstance(error, LostRankError)
    try:
        _wait(lambda: store.check([ERROR]), SAME_ERROR)
        own = f"error: {error}"
        printed = str(store.compare_set(ERROR, "", f"{start.rank} {own}"), "utf-8")
        store.add(SEEN, 1)
    except RuntimeError:  # rank 0 has ended, and its launcher reports it
        return is_loss
    rank, _, line = printed.partition(" ")
    return rank != str(start.rank) and (is_loss or line == own)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, and return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(WAIT)
    return holds


def _start_here(request: WorkflowJob) -> int:
    """Start the ranks on this machine, as torchrun does. They share the job's threads.

    Returns 0, or the exit code of the first rank that failed.
    """
    processes = request.processes
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What torch says of a process that ends, or of a signal, is said below in a line.
    logging.disable(logging.CRITICAL)
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
        # If all outputs exist, the signal came after the last step: Snakemake removes old outputs.
        is_made = all(Path(path).exists() for path in request.output)
        return 0 if is_made else 128 + stopped.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:  # the rank has reported its error
            return failure.exitcode
        ended_by = signal.Signals(-failure.exitcode)
        print(
            f"error: rank {rank} of {processes} was ended by {ended_by.name}; run the command "
            "again to resume from the last saved state",
            file=sys.stderr,
        )
        return 128 + ended_by
    return 0


# --- Rendezvous -----------------------------------------------------------------------------


def _meet(start: Start) -> Store:
    """Wait for all ranks, and return the store through which they exchange values.

    Errors: UserError, with the address, if some don't come.
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
            f"rank {start.rank} of {start.n} on {socket.gethostname()}: not all ranks connected to "
            f"{host}:{port} within {rank_timeout():.0f} seconds "
            f"({str(error).splitlines()[0]}); check that all of them run and that their nodes can "
            "reach this address"
        ) from None
    return store


def _port_of_step(job: int, step: int) -> int:
    """Return the port for a step's ranks. Other steps and jobs may run on the same node."""
    return FIRST_PORT + (61 * job + step) % N_PORTS


def _address_of_first_node(nodes: str) -> str:
    """Return the address of rank 0's node. Other nodes may not be able to resolve its name."""
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
            f"scontrol {' '.join(words)}: failed ({error}), so this rank can't find rank 0; put "
            "Slurm's commands on PATH on all nodes"
        ) from None


def _tell_nothing_to_train(start: Start, store: Store) -> None:
    """Tell the other ranks that there's nothing to train, and wait until they know.

    Under srun, the shared store ends with this process.
    """
    store.set(VERSION, "")
    _wait(lambda: store.add(KNOWING, 0) == start.n - 1, LATE)


def _wait_for_version(start: Start, store: Store) -> str:
    """Wait for the version to train; an empty string means that it exists already."""
    while True:
        try:
            if store.check([VERSION]):
                version = str(store.get(VERSION), "utf-8")
                store.add(KNOWING, 1)
                return version
        except RuntimeError:
            raise LostRankError(
                f"rank {start.rank} of {start.n}: rank 0 has ended; see its log for the reason"
            ) from None
        time.sleep(WAIT)


def _wait_for_inputs(paths: Sequence[str], start: Start) -> None:
    """Wait until the input files that rank 0 reads are visible on this node."""
    for path in paths:
        wait_for_rank_0s_file(
            HERE.root / path, f"rank {start.rank} of {start.n} on {socket.gethostname()}"
        )


def _alone(request: WorkflowJob) -> Ranks:
    if request.sharded:
        logger.warning("`sharded` has no effect on a single process, which has the whole model")
    return ALONE


def _join(start: Start, store: Store, job: Job, request: WorkflowJob) -> Ranks:
    """Connect all ranks of a training; check that they have the same job, code and disk.

    Errors: UserError if they don't.
    """
    assert job.training
    if start.rank == 0:
        store.set(VERSION, job.version)
    if request.processes not in (1, start.n):
        raise UserError(
            f"processes is {request.processes}, but {start.n} were started; remove `processes`, or "
            "the launcher that started them"
        )
    device = str(job.settings("train", TrainSettings).device)
    ranks = Ranks(start.rank, start.n, start.local_rank, request.sharded)
    with ranks.talking():
        _compare(start, store, job)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
            store=store,
            rank=start.rank,
            world_size=start.n,
            timeout=timedelta(seconds=rank_timeout()),
        )
    _check_disk(ranks, job.training.directory)
    logger.info("rank %d of %d on %s", start.rank, start.n, socket.gethostname())
    return ranks


def _compare(start: Start, store: Store, job: Job) -> None:
    """Raise UserError on all ranks if one has other code, torch, settings or inputs than rank 0."""
    own = {
        "code": code_digest(Path(sys.argv[0])),
        "torch": str(torch.__version__),
        **{
            f"{group}.{name}": str(value)
            for group, settings in job.parameters.items()
            if isinstance(settings, dict)
            for name, value in settings.items()
        },
    }
    if start.rank == 0:
        store.set(OF_MAIN, json.dumps([own, job.inputs]))
    of_main, inputs = json.loads(store.get(OF_MAIN))
    if job.inputs:
        own, of_main = {**own, **job.inputs}, {**of_main, **inputs}
    others = [name for name in of_main | own if own.get(name) != of_main.get(name)]
    if others:
        shown = [
            name if name == "code" or name in inputs else f"{name} {own.get(name)}"
            for name in others[:MOST_SHOWN]
        ]
        store.compare_set(
            OTHER,
            "",
            f"rank {start.rank} of {start.n} on {socket.gethostname()}: different from rank 0: "
            f"{', '.join(shown)}; start all ranks from one checkout and one environment, with the "
            "same settings, on a disk that all nodes share",
        )
    if store.add(COMPARED, 1) == start.n:
        store.set(ALL_COMPARED, "")
    store.wait([ALL_COMPARED], timedelta(seconds=rank_timeout()))
    if store.check([OTHER]):
        raise UserError(str(store.get(OTHER), "utf-8"))


def _check_disk(ranks: Ranks, directory: Path) -> None:
    """Raise UserError if a rank can't see a file that rank 0 wrote into a directory."""
    (token,) = ranks.gather(secrets.randbits(60))[0]
    path = directory / f".seen-by-all.{token:x}.tmp"
    if ranks.is_main:
        path.touch()
    (blind,) = ranks.largest(0 if wait_for_file(path) else ranks.rank)
    if ranks.is_main:
        path.unlink()
    if blind:
        raise UserError(
            f"rank {blind} of {ranks.n}: files that rank 0 writes to {directory} haven't appeared "
            f"here within {LATE:.0f} seconds; put the project on a disk that all nodes share"
        )
