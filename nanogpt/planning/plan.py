"""Plan a run: what it needs and whether it fits, before anything is downloaded or made."""

from dataclasses import dataclass
from pathlib import Path

from nanogpt.config.resolving import resolve_run
from nanogpt.config.schema import Config, Run, TrainSettings
from nanogpt.devices import ComputeSettings, resolve
from nanogpt.errors import UserError
from nanogpt.model.sizing import flops_per_token
from nanogpt.planning.machine import free_disk, free_memory, is_busy, memory_limit
from nanogpt.planning.memory import (
    FLOAT32,
    SamplingMemory,
    TrainingMemory,
    largest_batch,
    sampling_memory,
    training_memory,
)
from nanogpt.planning.pace import GpuTime, Pace, gpu_times, pace, training_steps
from nanogpt.planning.sizes import (
    DatasetSize,
    Parameters,
    count_parameters,
    dataset_size,
    directory_size,
)
from nanogpt.project import SHARD, Project
from nanogpt.training.state_files import STATES_KEPT


@dataclass(frozen=True)
class Training:
    """The needs of a training. tokens_per_step: of all micro-batches. flops: of all steps.

    epochs: passes over the training split; None if its length isn't known. missing: why its device
    isn't available; empty if it is. pace: None if it wasn't requested or can't be measured.
    """

    device: str
    dtype: str
    missing: str
    memory: TrainingMemory
    tokens_per_step: int
    tokens: int
    epochs: float | None
    flops_per_token: int
    flops: int
    pace: Pace | None
    hours: float | None
    gpus: tuple[GpuTime, ...]


@dataclass(frozen=True)
class Disk:
    """Disk space in bytes. states: all saved states of a training, while another is written.

    needed: the part that isn't on the disk yet. dataset: None if it isn't known.
    """

    model: int
    state: int
    states: int
    dataset: int | None
    needed: int
    free: int


@dataclass(frozen=True)
class Plan:
    """The plan of a run. training: None for an ensemble.

    limit: memory available to a process on this machine, in bytes. problem: why it can't be trained
    here, in one line. warnings: possible problems.
    """

    run: str
    dataset: str
    members: tuple[str, ...]
    data: DatasetSize
    parameters: Parameters
    training: Training | None
    sampling: SamplingMemory
    disk: Disk
    limit: int | None
    problem: str
    warnings: tuple[str, ...]


def make_plan(config: Config, name: str, project: Project, *, measure: bool = True) -> Plan:
    """Plan a run, which doesn't have to exist yet.

    measure: whether to time a few training steps.

    Errors: UserError for an unknown run.
    """
    run = resolve_run(config, name)
    members = [resolve_run(config, member) for member in run.ensemble] or [run]
    data = dataset_size(config, run.dataset, project)
    parts = [count_parameters(member.model, data.vocab_size) for member in members]
    parameters = Parameters(
        sum(part.embeddings for part in parts),
        sum(part.blocks for part in parts),
        sum(part.output for part in parts),
        all(part.is_tied for part in parts),
    )
    sample, no_sampling = _resolve(run.sample)
    train, no_training = (run.train, "") if run.ensemble else _resolve(run.train)
    memory = None
    if not run.ensemble:
        memory = training_memory(run.model, train, data.vocab_size, is_here=not no_training)
    sampling = sampling_memory([one.model for one in members], sample, data.vocab_size)
    device, missing = (sample.device, no_sampling) if run.ensemble else (train.device, no_training)
    limit = None if missing else memory_limit(device)
    disk = _plan_disk(run, parameters, data, memory, project)
    problem = _find_problem(run, memory, sampling, disk, limit)
    busy = measure and is_busy()  # checked before our own measurement
    training = None
    if memory:
        training = _plan_training(
            run, train, data, memory, missing=missing, measure=measure, fits=not problem
        )
    return Plan(
        run=name,
        dataset=run.dataset,
        members=run.ensemble,
        data=data,
        parameters=parameters,
        training=training,
        sampling=sampling,
        disk=disk,
        limit=limit,
        problem=problem,
        warnings=tuple(_list_warnings(training, problem, busy=busy)),
    )


def _resolve(settings: ComputeSettings) -> tuple[ComputeSettings, str]:
    """Resolve device and dtype. Also returns why the device isn't available, or an empty string.

    A missing GPU is assumed to support bfloat16.
    """
    try:
        return resolve(settings), ""
    except (
        UserError
    ) as error:  # this machine doesn't have the device; `resolve_run` checked the rest
        missing = str(error).partition(";")[0]
    fastest = "bfloat16" if settings.device.startswith("cuda") else "float32"
    dtype = fastest if settings.dtype == "auto" else settings.dtype
    return settings.model_copy(update={"dtype": dtype}), missing


def _plan_training(
    run: Run,
    train: TrainSettings,
    data: DatasetSize,
    memory: TrainingMemory,
    *,
    missing: str,
    measure: bool,
    fits: bool,
) -> Training:
    rows = train.batch_size * train.gradient_accumulation_steps
    per_step = rows * run.model.block_size
    per_token = flops_per_token(run.model, data.vocab_size)
    tokens = per_step * train.max_iters
    steps = training_steps(train)
    measured = None
    if measure and not missing:
        measured = pace(run.model, train, data.vocab_size, per_step * per_token, fits=fits)
    in_16_bits = run.train.dtype != "float32" and run.train.reproducible == "machine"
    of_gpus = gpu_times(steps * per_step * per_token, memory.least) if in_16_bits else []
    return Training(
        device=train.device,
        dtype=train.dtype,
        missing=missing,
        memory=memory,
        tokens_per_step=per_step,
        tokens=tokens,
        epochs=tokens / data.n_train if data.n_train else None,
        flops_per_token=per_token,
        flops=tokens * per_token,
        pace=measured,
        hours=measured.step_seconds * steps / 3600 if measured else None,
        gpus=tuple(of_gpus),
    )


def _plan_disk(
    run: Run,
    parameters: Parameters,
    data: DatasetSize,
    memory: TrainingMemory | None,
    project: Project,
) -> Disk:
    """Estimate a run's disk space, and the part that isn't used yet."""
    model = FLOAT32 * parameters.total
    kept = model if run.train.keep == "best" else 0
    state = model + kept + memory.optimizer if memory else 0
    states = (STATES_KEPT + 1) * state  # the new state is complete before the oldest is removed
    dataset = project.datasets / run.dataset
    results = project.results / run.name / "model"
    is_trained = bool(directory_size(results))
    needed = _bytes_to_write(dataset, data) + (0 if is_trained else model)
    milestones = len(run.train.milestones) * model if memory else 0
    needed += 0 if is_trained else states + milestones
    return Disk(model, state, states, data.n_bytes, needed, free_disk(project.results))


def _bytes_to_write(dataset: Path, data: DatasetSize) -> int:
    """Return the bytes that a dataset's files still need, which may have been interrupted."""
    if (dataset / "meta.json").exists():
        return 0
    shards = [path for path in dataset.glob("*.bin") if SHARD.fullmatch(path.name)]
    return max(0, (data.n_bytes or 0) - sum(path.stat().st_size for path in shards))


def _find_problem(
    run: Run,
    memory: TrainingMemory | None,
    sampling: SamplingMemory,
    disk: Disk,
    limit: int | None,
) -> str:
    """Explain in one line why a run doesn't fit here, and what to lower; empty if it fits."""
    if disk.needed > disk.free:
        return (
            f"{run.name}: needs {in_bytes(disk.needed)} of disk space, but {in_bytes(disk.free)} "
            "is free; free some space, or lower n_layer or n_embd"
        )
    needed = memory.total if memory else sampling.total
    if limit is None or needed <= limit:
        return ""
    what = "training" if memory else "sampling"
    return (
        f"{run.name}: {what} needs about {in_bytes(needed)} of memory, but this machine has "
        f"{in_bytes(limit)}; {_advise(run, memory, limit)}"
    )


def _advise(run: Run, memory: TrainingMemory | None, limit: int) -> str:
    if memory is None:
        return "lower sample.num_samples, or average fewer runs"
    batch = largest_batch(memory, run.train.batch_size, limit)
    if batch < 1:
        return "lower n_layer or n_embd"
    accumulation = -(-run.train.batch_size * run.train.gradient_accumulation_steps // batch)
    return f"set train.batch_size: {batch} and train.gradient_accumulation_steps: {accumulation}"


def _list_warnings(training: Training | None, problem: str, *, busy: bool) -> list[str]:
    warnings = []
    free = free_memory()
    if training and not problem and training.device == "cpu" and free is not None:
        needed = training.memory.total
        if needed > free:
            warnings.append(
                f"training needs about {in_bytes(needed)} of memory, but only {in_bytes(free)} is "
                "free now; stop other programs first"
            )
    if training and training.pace and busy:
        warnings.append(
            "other programs are busy on this machine; without them, a step may be faster"
        )
    return warnings


def in_bytes(n_bytes: float) -> str:
    """Format a number of bytes: `43 MB`, `1.2 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            amount = n_bytes / size
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
    return f"{n_bytes:.0f} bytes"
