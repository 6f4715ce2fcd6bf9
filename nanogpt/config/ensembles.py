"""Ensembles: entries of config.yaml that average the predictions of other runs."""

from nanogpt.config.messages import look_up
from nanogpt.config.resolving import expand, run_names
from nanogpt.config.schema import Config, RunEntry
from nanogpt.errors import UserError

# Settings that an ensemble can't have: it shares its runs' dataset, and it isn't trained.
NOT_OWN = ("dataset", "model", "train", "bench")


def expand_ensembles(config: Config) -> Config:
    """Return the config with sweeps in ensembles replaced by their runs, and datasets filled in.

    Errors: UserError for an unknown or repeated run, runs of different datasets, and settings that
    an ensemble can't have.
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
        raise UserError(f"{where}.ensemble: the list is empty; list some runs, or remove it")
    for key in NOT_OWN:
        if key in entry.model_fields_set:
            raise UserError(f"{where}.{key}: an ensemble isn't trained; remove `{key}`")
    known = dict.fromkeys([*run_names(config), *config.sweep_of.values()])
    for member in entry.ensemble:
        look_up(known, member, f"{where}.ensemble", "run")
    members = expand(config, entry.ensemble)
    datasets: dict[str, str] = {}
    for member in members:
        of_member = config.runs.get(member, RunEntry())
        if of_member.ensemble:
            raise UserError(f"{where}.ensemble: `{member}` is an ensemble; list its runs instead")
        datasets.setdefault(of_member.dataset or member, member)
    if len(set(members)) < len(members):
        twice = next(member for member in members if members.count(member) > 1)
        raise UserError(f"{where}.ensemble: `{twice}` is listed twice; remove one")
    if len(datasets) > 1:
        (one, first), (other, second) = list(datasets.items())[:2]
        raise UserError(
            f"{where}.ensemble: `{first}` is trained on `{one}`, but `{second}` on `{other}`; list "
            "runs with the same dataset"
        )
    return entry.model_copy(update={"ensemble": members, "dataset": next(iter(datasets))})
