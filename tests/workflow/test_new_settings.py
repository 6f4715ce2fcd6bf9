"""A new setting reruns nothing until a run gets a value that isn't neutral."""

from pathlib import Path

from tests.workflow.projects import AFTER_TRAIN, REMODELLING, edit_config, planned, setting


def add_setting(project: Path, default: bool) -> None:
    """Add a setting to models, as a later version might."""
    schema = project / "nanogpt/config/schema.py"
    text = schema.read_text()
    before = "class ModelChoice(ModelSettings):"
    assert before in text
    field = f'    later_norm: bool = new_setting({default}, neutral=False, description="later")\n'
    text = text.replace(f"\n\n\n{before}", f"\n{field}\n\n{before}", 1)
    schema.write_text(text)


def test_a_new_setting_re_runs_nothing(project: Path) -> None:
    add_setting(project, default=False)
    assert planned(project) == {}


def test_a_new_setting_whose_default_is_not_neutral_re_runs_what_gets_it(project: Path) -> None:
    add_setting(project, default=True)
    assert planned(project) == REMODELLING


def test_a_new_setting_written_out_at_its_neutral_value_re_runs_nothing(project: Path) -> None:
    add_setting(project, default=True)
    edit_config(project, lambda config: config["models"]["tiny"].update(later_norm=False))
    assert planned(project) == {}


def test_a_run_with_the_neutral_value_is_not_rerun(project: Path) -> None:
    add_setting(project, default=True)
    keep = {"preset": "tiny", "later_norm": False}
    edit_config(project, lambda config: config["runs"]["one"].update(model=keep))
    again = {**dict.fromkeys(AFTER_TRAIN, 1), "bench": 1}
    assert planned(project) == again


def test_a_preset_with_a_new_setting_re_runs_its_runs(project: Path) -> None:
    add_setting(project, default=False)
    edit_config(
        project,
        lambda config: (
            config["models"].update(normed={**config["models"]["tiny"], "later_norm": True}),
            config["runs"]["two"].update(model="normed"),
        ),
    )
    assert planned(project) == {**dict.fromkeys(AFTER_TRAIN, 1), "bench": 1}


def test_writing_out_a_default_reruns_nothing(project: Path) -> None:
    for group in ("train", "eval", "sample"):
        setting("defaults", group, "seed", value=1337)(project)
    # Derived from max_iters unless it's given.
    setting("defaults", "train", "lr_decay_iters", value=20)(project)
    assert planned(project) == {}
