"""The plan of a run: what it takes, and whether it fits, before anything is downloaded or made."""

from dataclasses import dataclass

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
from nanogpt.project import Project
from nanogpt.training.state_files import STATES_KEPT


@dataclass(frozen=True)
class Training:
    """What a training takes. tokens_per_step: of all micro-batches. flops: of all steps.

    epochs: how often the training split is read; None if its length isn't known. missing: why its
    device isn't here, or nothing. pace: None where it wasn't wanted, or can't be measured.
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
    """Bytes on the disk. states: of an unfinished training, several while one is saved.

    needed: what isn't there yet. dataset: None if it isn't known.
    """

    model: int
    state: int
    states: int
    dataset: int | None
    needed: int
    free: int


@dataclass(frozen=True)
class Plan:
    """All of a plan. training: None for an ensemble.

    limit: the bytes of memory that this machine lets a process take. problem: why it can't be
    trained here, in one line. warnings: what may go wrong.
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
    """The plan of a run that may not be made yet.

    measure: whether to make a few steps to see how long they take.

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
    busy = measure and is_busy()  # before it's busy with this
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
    """Settings with device and dtype resolved, and why that device isn't here, or nothing.

    A GPU that isn't here is taken to have bfloat16.
    """
    try:
        return resolve(settings), ""
    except UserError as error:  # of what this machine lacks; `resolve_run` checked the rest
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
    """What a run takes on the disk, and how much of that isn't there yet."""
    model = FLOAT32 * parameters.total
    state = model + memory.kept + memory.optimizer if memory else 0
    states = (STATES_KEPT + 1) * state  # the new one is whole before the oldest is removed
    dataset = project.datasets / run.dataset
    results = project.results / run.name / "model"
    is_trained = bool(directory_size(results))
    needed = (0 if directory_size(dataset) else data.n_bytes or 0) + (0 if is_trained else model)
    milestones = len(run.train.milestones) * model if memory else 0
    needed += 0 if is_trained else states + milestones
    return Disk(model, state, states, data.n_bytes, needed, free_disk(project.results))


def _find_problem(
    run: Run,
    memory: TrainingMemory | None,
    sampling: SamplingMemory,
    disk: Disk,
    limit: int | None,
) -> str:
    """Why a run can't be made here, and what to lower, in one line; nothing if it can."""
    if disk.needed > disk.free:
        return (
            f"{run.name}: takes {in_bytes(disk.needed)} on the disk, and {in_bytes(disk.free)} is "
            "free; free some, or lower n_layer or n_embd"
        )
    needed = memory.total if memory else sampling.total
    if limit is None or needed <= limit:
        return ""
    what = "training" if memory else "sampling"
    return (
        f"{run.name}: {what} takes about {in_bytes(needed)} of memory, and this machine lets it "
        f"take {in_bytes(limit)}; {_advise(run, memory, limit)}"
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
                f"training takes about {in_bytes(needed)} of memory, and only {in_bytes(free)} is "
                "free now: end something else first"
            )
    if training and training.pace and busy:
        warnings.append("other work computes here now; without it, a step may take less time")
    return warnings


def in_bytes(n_bytes: float) -> str:
    """`43 MB`, `1.2 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            amount = n_bytes / size
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
    return f"{n_bytes:.0f} bytes"
