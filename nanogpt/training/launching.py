"""How processes become the ranks of one training: by torchrun, by srun, or started from here.

torchrun and srun tell each process its number. Where neither did and several processes are asked
for, torch starts them on this machine. Rank 0 then does all that a stage does, with the lock and
the cache, and the others wait until there is something to train.
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
from nanogpt.training.state_files import LATE, WAIT, wait_for_file

logger = logging.getLogger(__name__)

TIME_TO_SAVE = 600  # seconds that ranks have for saving their state after a signal to stop
# Of Slurm's steps: below those that Linux gives to clients.
FIRST_PORT, N_PORTS = 20_000, 12_000
# Keys of what ranks share: what rank 0 trains (empty: it was made already), and how many know; the
# job of rank 0, one that differs, how many have compared theirs, and that all have; the number of a
# rank with the error that it has printed, and how many have seen that.
VERSION, KNOWING = "version", "knowing"
OF_MAIN, OTHER, COMPARED, ALL_COMPARED = "of main", "other", "compared", "all compared"
ERROR, TOLD = "error", "told"
SAME_ERROR = 5.0  # seconds within which ranks run into the same error
MOST_SHOWN = 3


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
    with _leaving_at_once():
        with following(request, "train", start.rank):
            store = _meet(start)
        if start.rank == 0:
            with _telling(start, store):
                lead(lambda job: make(job, _join(start, store, job, request)))
            if not store.check([VERSION]):
                _tell_nothing_to_train(start, store)
        else:
            _follow(start, store, request, make)


def _follow(
    start: Start, store: Store, request: WorkflowJob, make: Callable[[Job, Ranks], Made]
) -> None:
    """Take part in what rank 0 trains, if it does."""
    with following(request, "train", start.rank, partial(_is_told, start, store)):
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
    """LostRankError if a directory is gone; rank 0, which has a lock in it, then ends as well."""
    if not directory.is_dir():
        raise LostRankError(f"rank {start.rank} of {start.n}: {directory} was removed")


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Let an error end this process without a look back.

    The interpreter would take torch's threads apart, which aborts some processes, and may wait for
    other ranks. After a training that went well, all ranks leave torch together.
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
def _telling(start: Start, store: Store) -> Iterator[None]:
    """Let rank 0 print its error, and then the others look whether they have the same one."""
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        print(end.code, file=sys.stderr, flush=True)
        with suppress(RuntimeError):  # what started the ranks has ended
            if store.check([VERSION]):  # they are under way
                store.set(ERROR, f"0 {end.code}")
                _wait(lambda: store.add(TOLD, 0) == start.n - 1, SAME_ERROR)
        sys.exit(1)


def _is_told(start: Start, store: Store, error: UserError) -> bool:
    """Whether another rank has printed the same as this one would, or will do in a moment.

    Where rank 0 is silent, as it hangs, the first of the others prints what it has.
    """
    is_loss = isinstance(error, LostRankError)
    try:
        _wait(lambda: store.check([ERROR]), SAME_ERROR)
        own = f"error: {error}"
        said = str(store.compare_set(ERROR, "", f"{start.rank} {own}"), "utf-8")
        store.add(TOLD, 1)
    except RuntimeError:  # rank 0 has ended, and what started it says so
        return is_loss
    rank, _, line = said.partition(" ")
    return rank != str(start.rank) and (is_loss or line == own)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; whether it does in time."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(WAIT)
    return holds


def _start_here(request: WorkflowJob) -> int:
    """Start the ranks on this machine, as torchrun does; they share the threads of the job.

    Returns 0, or the exit code of the first that failed.
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
    _wait(lambda: store.add(KNOWING, 0) == start.n - 1, LATE)


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
    """Wait until this node sees the inputs that rank 0 reads.

    Errors: UserError if it doesn't.
    """
    for path in paths:
        if not wait_for_file(HERE.root / path):
            raise UserError(
                f"rank {start.rank} of {start.n} on {socket.gethostname()}: {path}: rank 0 has "
                f"this file, but it hasn't appeared here within {LATE:.0f} seconds; put the "
                "project on a disk that all nodes share"
            )


def _alone(request: WorkflowJob) -> Ranks:
    if request.sharded:
        logger.warning("`sharded` has no effect on a single process, which has the whole model")
    return ALONE


def _join(start: Start, store: Store, job: Job, request: WorkflowJob) -> Ranks:
    """Start a training with all ranks, if they have the same job, code and disk.

    Errors: UserError where that isn't so.
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
    """UserError on all ranks if one has other code, torch, settings or input files than rank 0."""
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
            f"rank {start.rank} of {start.n} on {socket.gethostname()}: not the same as rank 0 "
            f"has: {', '.join(shown)}; start all ranks from one checkout and one environment, with "
            "the same settings, on a disk that all nodes share",
        )
    if store.add(COMPARED, 1) == start.n:
        store.set(ALL_COMPARED, "")
    store.wait([ALL_COMPARED], timedelta(seconds=rank_timeout()))
    if store.check([OTHER]):
        raise UserError(str(store.get(OTHER), "utf-8"))


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
