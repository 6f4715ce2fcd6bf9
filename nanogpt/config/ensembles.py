"""Ensembles: entries of config.yaml that average what other runs predict."""

from nanogpt.config.messages import look_up
from nanogpt.config.resolving import expand, run_names
from nanogpt.config.schema import Config, RunEntry
from nanogpt.errors import UserError

# What an ensemble takes from its runs, or doesn't do.
NOT_OWN = ("dataset", "model", "train", "bench")


def expand_ensembles(config: Config) -> Config:
    """The config whose ensembles name runs only, each once, and have the dataset of these.

    Errors: UserError for a run that isn't one, or of another dataset, and for settings that an
    ensemble has no use for.
    """
    runs = {
        name: _expanded(config, name, entry) if "ensemble" in entry.model_fields_set else entry
        for name, entry in config.runs.items()
    }
    expanded = config.model_copy(update={"runs": runs})
    expanded._sweep_of = config.sweep_of
    return expanded


def _expanded(config: Config, name: str, entry: RunEntry) -> RunEntry:
    where = f"runs.{name}"
    if not entry.ensemble:
        raise UserError(f"{where}.ensemble: no run; name some, or leave it out")
    for key in NOT_OWN:
        if key in entry.model_fields_set:
            raise UserError(f"{where}.{key}: an ensemble trains nothing; leave it out")
    known = dict.fromkeys([*run_names(config), *config.sweep_of.values()])
    for member in entry.ensemble:
        look_up(known, member, f"{where}.ensemble", "run")
    members = expand(config, entry.ensemble)
    datasets: dict[str, str] = {}
    for member in members:
        of_member = config.runs.get(member, RunEntry())
        if of_member.ensemble:
            raise UserError(f"{where}.ensemble: `{member}` is an ensemble; name its runs")
        datasets.setdefault(of_member.dataset or member, member)
    if len(set(members)) < len(members):
        twice = next(member for member in members if members.count(member) > 1)
        raise UserError(f"{where}.ensemble: `{twice}` is listed twice; name it once")
    if len(datasets) > 1:
        (one, first), (other, second) = list(datasets.items())[:2]
        raise UserError(
            f"{where}.ensemble: `{first}` is trained on {one}, `{second}` on {other}; name runs of "
            "one dataset"
        )
    return entry.model_copy(update={"ensemble": members, "dataset": next(iter(datasets))})
