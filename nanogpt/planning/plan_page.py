"""Format a plan for the terminal, or as JSON."""

from dataclasses import asdict

from pydantic import JsonValue

from nanogpt.errors import plural
from nanogpt.planning.machine import UTILISATION
from nanogpt.planning.plan import Plan, Training, in_bytes

LABEL = 18  # width of the first column


def plan_as_json(plan: Plan) -> dict[str, JsonValue]:
    """Return a plan as JSON, with the sums of its parts."""
    content = asdict(plan)
    content["parameters"]["total"] = plan.parameters.total
    content["sampling"]["total"] = plan.sampling.total
    if plan.training:
        content["training"]["memory"]["total"] = plan.training.memory.total
    return content


def plan_page(plan: Plan) -> list[str]:
    """Return the lines that `nanogpt plan` prints."""
    rows = [*_write_model(plan)]
    if plan.training:
        rows += _write_training(plan.training)
        rows += _write_time(plan.training)
    rows += _write_sampling(plan)
    rows += _write_disk(plan)
    lines = [_write_title(plan), ""]
    last = ""
    for label, text in rows:
        lines.append(f"{'' if label == last else label:<{LABEL}}{text}".rstrip())
        last = label
    return [*lines, *(f"warning: {warning}" for warning in plan.warnings)]


def _write_title(plan: Plan) -> str:
    data = plan.data
    tokens = f"{data.tokenizer}, {data.vocab_size:,} symbols"
    more = f", {data.vocabulary}" if data.vocabulary else ""
    title = f"{plan.run} on {plan.dataset} ({tokens}{more})"
    if plan.members:
        title += f": an ensemble of {plural(len(plan.members), 'run')}, which isn't trained"
    return title


def _write_model(plan: Plan) -> list[tuple[str, str]]:
    parts = plan.parameters
    tied = " (tied)" if parts.is_tied else ""
    output = f"output {_show_number(parts.output)}{tied}"
    rows = [
        (
            "parameters",
            f"{parts.total:,}: embeddings {_show_number(parts.embeddings)}, blocks "
            f"{_show_number(parts.blocks)}, {output}",
        )
    ]
    if plan.members:
        rows.append(("", f"total of {', '.join(plan.members)}; plan each run to see its training"))
    return rows


def _write_training(training: Training) -> list[tuple[str, str]]:
    memory, label = training.memory, "memory, training"
    epochs = f", {_show_times(training.epochs)} of the training split" if training.epochs else ""
    how = ", estimated from a step on a CPU" if training.missing else ""
    kept = f" best weights {in_bytes(memory.kept)}," if memory.kept else ""
    return [
        (label, f"{in_bytes(memory.total)} in {training.dtype} on {training.device}{how}:"),
        (
            label,
            f"weights {in_bytes(memory.weights)},{kept} optimizer {in_bytes(memory.optimizer)},",
        ),
        (
            label,
            f"activations and gradients {in_bytes(memory.activations)} "
            f"(logits {in_bytes(memory.logits)}, gradients {in_bytes(memory.gradients)}),",
        ),
        (label, f"spare {in_bytes(memory.spare)}, Python and torch {in_bytes(memory.process)}"),
        (
            "tokens",
            f"{training.tokens_per_step:,} per step, "
            f"{_show_number(training.tokens)} in total{epochs}",
        ),
        (
            "FLOPs",
            f"{_show_number(training.flops_per_token)} per token, "
            f"{_show_number(training.flops)} in total",
        ),
    ]


def _write_time(training: Training) -> list[tuple[str, str]]:
    rows = []
    pace = training.pace
    if pace and training.hours is not None:
        how = "measured" if pace.is_measured else "estimated from the speed of matrix products"
        threads = plural(pace.threads, "thread")
        rows.append(
            ("time here", f"{_show_hours(training.hours)} on {threads}, including evaluations")
        )
        rows.append(("time here", f"a step takes {_show_seconds(pace.step_seconds)}, {how}"))
    else:
        why = f": {training.missing}" if training.missing else ""
        rows.append(("time here", f"not measured{why}"))
    return rows + _write_gpus(training)


def _write_gpus(training: Training) -> list[tuple[str, str]]:
    """Format the estimates for one GPU of each kind, three per line."""
    if not training.gpus:
        return []
    label = "time on one GPU"
    rows = [
        (
            label,
            f"estimated at {UTILISATION:.0%} of its published speed; small models take longer",
        ),
    ]
    fitting = [f"{gpu.name} {_show_hours(gpu.hours)}" for gpu in training.gpus if gpu.fits]
    rows += [(label, ", ".join(fitting[i : i + 3])) for i in range(0, len(fitting), 3)]
    too_small = [gpu.name for gpu in training.gpus if not gpu.fits]
    if too_small:
        rows.append((label, f"not enough memory: {', '.join(too_small)}"))
    return rows


def _write_sampling(plan: Plan) -> list[tuple[str, str]]:
    memory, label = plan.sampling, "memory, sampling"
    return [
        (
            label,
            f"{in_bytes(memory.total)}: weights {in_bytes(memory.weights)}, copies of matrices "
            f"{in_bytes(memory.copies)},",
        ),
        (
            label,
            f"key/value cache {in_bytes(memory.cache)}, Python and torch "
            f"{in_bytes(memory.process)}",
        ),
    ]


def _write_disk(plan: Plan) -> list[tuple[str, str]]:
    disk = plan.disk
    text = f"model {in_bytes(disk.model)}"
    if plan.training:
        text += f", saved states {in_bytes(disk.states)} (each {in_bytes(disk.state)})"
    known = in_bytes(disk.dataset) if disk.dataset is not None else "not known yet"
    return [("disk", f"{text},"), ("disk", f"dataset {known}; {in_bytes(disk.free)} free")]


def _show_number(n: float) -> str:
    """Format a number: `842`, `12,800`, `10.7 M`, `5.81 P`."""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:,.0f}"


def _show_times(epochs: float) -> str:
    return f"{epochs:.2g} epochs" if epochs < 10 else f"{epochs:,.0f} epochs"


def _show_hours(hours: float) -> str:
    if hours < 1 / 60:
        return "under 1 min"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:,.0f} days"


def _show_seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
