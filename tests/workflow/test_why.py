"""`nanogpt why` plans the same jobs as `snakemake -n` and names the cause of each."""

import json
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nanogpt.artifacts.rule_records import read_rule_record
from nanogpt.config.loading import find_texts, load, read_mapping
from nanogpt.planning.explaining import explain, find_targets
from nanogpt.planning.restoring import Outcomes
from nanogpt.planning.stage_code import current_code
from nanogpt.planning.stages import find_jobs, inputs_of, params_of
from nanogpt.planning.staleness import PARTS, Verdict, Workflow
from nanogpt.project import Project
from tests.checkouts import own_environment
from tests.workflow.projects import (
    ESSAYS,
    PAGE,
    Computed,
    Edit,
    make,
    planned,
    replacement,
    setting,
    snakemake,
)

# The jobs for a dataset of many files, which `why` counts as `prepare`.
IN_PREPARE = {"count", "plan", "encode", "encode_shard"}
SAMPLES = "results/one/samples.txt"


@pytest.fixture(autouse=True)
def _in_the_project(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the project's directory, because one of its runs starts from a directory there."""
    name = next(name for name in ("project", "done_project") if name in request.fixturenames)
    monkeypatch.chdir(request.getfixturevalue(name))


def workflow_of(root: Path) -> Workflow:
    """Return the jobs for a project's current config.yaml."""
    project = Project(root)
    return Workflow(load(read_mapping(root / "config.yaml"), find_texts(project)), project)


def verdicts_on(root: Path, target: str) -> list[Verdict]:
    workflow = workflow_of(root)
    _, jobs, files = find_targets(workflow, target)
    return workflow.plan(jobs, files)


def running(verdicts: list[Verdict]) -> dict[str, int]:
    """Return the number of jobs per rule that would run."""
    return dict(Counter(v.job.stage for v in verdicts if v.runs))


def reasons(verdicts: list[Verdict]) -> dict[str, list[str]]:
    """Return the stated reason of each job that has its own."""
    return {
        str(v.job): list(map(str, v.reasons)) for v in verdicts if v.reasons and v.state == "again"
    }


def planned_by_snakemake(root: Path, target: str, *arguments: str) -> dict[str, int]:
    plan = planned(root, target, *arguments)
    return {rule: n for rule, n in plan.items() if rule not in IN_PREPARE}


def why(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with the project's copy of the package."""
    return subprocess.run(
        [sys.executable, "-c", "from nanogpt.cli.main import main; main()", "why", *arguments],
        cwd=root,
        env=own_environment(**environment),
        capture_output=True,
        text=True,
    )


def noted_outputs(root: Path) -> set[str]:
    """Return the files with Snakemake metadata, without temporary ones."""
    names = (path.name for path in (root / ".snakemake/metadata").iterdir() if path.is_file())
    outputs = {urlsafe_b64decode(name).decode() for name in names}
    return {path for path in outputs if not PARTS.search(path)}


def test_the_outputs_agree_with_the_rules(done_project: Path) -> None:
    workflow = workflow_of(done_project)
    noted = noted_outputs(done_project)
    made = {workflow.maker_of(path) for path in noted}
    assert None not in made
    assert {path for job in made for path in (*job.outputs, job.manifest)} == noted


def test_the_stages_agree_with_the_rules(done_project: Path) -> None:
    workflow = workflow_of(done_project)
    compared = set()
    for job in [*find_jobs(workflow.config), *workflow.jobs_below("results/datasets")]:
        record = read_rule_record(workflow.project, job.outputs[0])
        if record is None:  # not used in this project
            continue
        code = current_code(job.stage, workflow.project)
        params = params_of(workflow.config, job, code, workflow.sharded, workflow.project)
        inputs = inputs_of(workflow.config, job, workflow.sharded, workflow.project)
        assert record.rule == job.stage
        assert params <= record.params, job
        # `bench` also has a number of threads, which a profile can set.
        assert job.stage == "bench" or params == record.params, job
        assert set(inputs) == {path for path in record.inputs if not PARTS.search(path)}, job
        compared.add(job.stage)
    listed = snakemake(done_project, "--list-rules").stdout.splitlines()
    rules = {line.split()[0] for line in listed if line.strip()}
    # test_sharded_datasets.py has a sharded dataset.
    unknown = rules - {"all", "benches", "prepare_shards", *IN_PREPARE} - compared
    assert unknown <= {"download_gpt2"}, "planning/stages.py doesn't know these rules"
    assert len(compared) > len(IN_PREPARE)


def test_everything_is_up_to_date_after_a_run(done_project: Path) -> None:
    for target in (PAGE, ESSAYS, "results/both", "one", "results/mixed/samples.txt"):
        assert running(verdicts_on(done_project, target)) == {}
    workflow = workflow_of(done_project)
    path, jobs, files = find_targets(workflow, SAMPLES)
    assert explain(path, jobs, workflow.plan(jobs, files), {})[0] == f"{SAMPLES}: up to date"


@dataclass(frozen=True)
class Case:
    """An edit, a target, and the expected reasons by job."""

    edit: Edit
    reasons: Mapping[str, list[str]]
    target: str = PAGE
    arguments: tuple[str, ...] = field(default=())


def removed(path: str) -> Edit:
    return lambda project: (project / path).unlink()


def written(path: str, text: str) -> Edit:
    def apply(project: Path) -> None:
        (project / path).write_text(text)

    return apply


def touched(path: str) -> Edit:
    return lambda project: (project / path).touch()


CASES = {
    "a training setting": Case(
        setting("runs", "one", "train", "learning_rate", value=0.002),
        {"train one": ["train.learning_rate: 0.001 -> 0.002"]},
    ),
    "a setting that had its neutral value": Case(
        setting("runs", "one", "train", "optimizer", value="muon"),
        {"train one": ["train.optimizer: adamw -> muon"]},
    ),
    "two settings of all runs": Case(
        lambda project: (
            setting("models", "tiny", "n_embd", value=32)(project),
            setting("models", "tiny", "dropout", value=0.0)(project),
        ),
        {
            f"{stage} {run}": ["model.n_embd: 16 -> 32", "model.dropout: 0.1 -> 0.0"]
            for stage, run in (("train", "one"), ("bench", "one"), ("train", "two"))
        },
    ),
    "a device that was chosen by itself before": Case(
        setting("runs", "one", "eval", "device", value="cpu"),
        {"eval one": ["eval.device: auto -> cpu"]},
    ),
    "a setting of the dataset": Case(
        setting("datasets", "play", "val_ratio", value=0.2),
        {"prepare play": ["dataset.val_ratio: 0.1 -> 0.2"]},
    ),
    "the corpus": Case(
        setting("corpora", "play", "seed", value=2),
        {"write_builtin play": ["corpus.seed: 1337 -> 2"]},
    ),
    "the report's runs": Case(
        setting("report", "runs", value=["one"]),
        {"bench_report report": ['runs: ["one", "two"] -> ["one"]']},
    ),
    "n-grams mixed in": Case(
        setting("runs", "one", "ngram", value=True),
        {
            "eval one": ["results/one/model/ngrams.safetensors is a new input"],
            "sample one": ["results/one/model/ngrams.safetensors is a new input"],
        },
    ),
    "a comment": Case(replacement("config.yaml", "runs:", "# mine\nruns:"), {}),
    "threads": Case(lambda _: None, {}, arguments=("--set-threads", "eval=2", "sample=2")),
    "a result that was removed": Case(
        removed("results/one/eval.json"),
        {"eval one": ["results/one/eval.json is missing"]},
        target="results/one/eval.json",
    ),
    "a result on the way that was removed": Case(removed("results/one/eval.json"), {}),
    "a model that was removed, with another prompt": Case(
        lambda project: (
            removed("results/one/model/config.json")(project),
            setting("runs", "one", "sample", "start", value="The")(project),
        ),
        {
            "train one": ["results/one/model/config.json is missing"],
            "sample one": ['sample.start: "" -> The'],
        },
    ),
    "a dataset that was removed": Case(
        lambda project: [path.unlink() for path in project.glob("results/datasets/play/*")],
        {},
        target=SAMPLES,
    ),
    "a result that was edited": Case(
        written(SAMPLES, "Better."),
        {
            "bench_report report": [f"{SAMPLES} was edited after `sample one` made it"],
        },
    ),
    "an edited result that nothing reads": Case(written(SAMPLES, "Better."), {}, target=SAMPLES),
    "a model that was edited": Case(
        written("results/one/model/config.json", "{}"),
        {
            f"{stage} one": ["results/one/model/config.json was edited after `train one` made it"]
            for stage in ("eval", "sample")
        },
    ),
    "a result that was touched": Case(touched("results/one/model/config.json"), {}),
    "a text that was edited": Case(
        written("texts/my éssays/03 é.txt", "Another one.\n" * 9),
        {"prepare essays": ["texts/my éssays/03 é.txt has different contents now"]},
        target=ESSAYS,
    ),
    "a text that was touched": Case(
        touched("texts/my éssays/03 é.txt"),
        {"prepare essays": ["its files were touched or moved, with the same contents"]},
        target=ESSAYS,
    ),
    "a new run": Case(
        setting("runs", "three", value={"dataset": "play"}), {}, target="results/three/samples.txt"
    ),
    "an ensemble of another run": Case(
        lambda project: (
            touched("results/mixed/model/model.safetensors")(project),
            setting("runs", "both", "ensemble", value=["one", "mixed"])(project),
        ),
        {
            "combine both": [
                *(
                    f"results/mixed/model/{name} is a new input"
                    for name in ("model.safetensors", "config.json", "tokenizer.json")
                ),
                *(
                    f"results/two/model/{name} is no longer an input"
                    for name in ("config.json", "model.safetensors", "tokenizer.json")
                ),
            ]
        },
        target="results/both/eval.json",
    ),
}


# Each case needs a dry run and a copy of the project. There's one case for each kind of reason.
FAST = (
    "two settings of all runs",
    "the corpus",
    "n-grams mixed in",
    "threads",
    "a model that was removed, with another prompt",
    "a model that was edited",
    "a text that was edited",
)


@pytest.mark.parametrize(
    "what", [pytest.param(w, marks=[] if w in FAST else [pytest.mark.slow]) for w in CASES]
)
def test_why_names_the_cause_and_plans_the_same_jobs_as_snakemake(project: Path, what: str) -> None:
    case = CASES[what]
    case.edit(project)
    verdicts = verdicts_on(project, case.target)
    assert reasons(verdicts) == case.reasons
    assert running(verdicts) == planned_by_snakemake(project, case.target, *case.arguments)


def test_a_copy_without_snakemakes_metadata_is_left_alone(project: Path) -> None:
    for path in project.glob(".snakemake/metadata/*"):
        path.unlink()
    setting("runs", "one", "train", "learning_rate", value=0.002)(project)
    verdicts = verdicts_on(project, SAMPLES)
    assert running(verdicts) == planned_by_snakemake(project, SAMPLES) == {}
    unnoticed = {str(v.job): list(map(str, v.unnoticed)) for v in verdicts if v.unnoticed}
    assert unnoticed == {"train one": ["train.learning_rate: 0.001 -> 0.002"]}
    workflow = workflow_of(project)
    path, jobs, _ = find_targets(workflow, SAMPLES)
    assert explain(path, jobs, verdicts, {})[-1].endswith("--forcerun train")


# --- Code -------------------------------------------------------------------------------------


def jobs_of(answer: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    assert answer.returncode == 0, answer.stderr
    jobs = json.loads(answer.stdout)["jobs"]
    return {
        job["job"]: [reason["what"] for reason in job["reasons"]]
        for job in jobs
        if job["state"] in ("again", "never made")
    }


def test_an_edited_function_is_named(project: Path) -> None:
    edits = {
        "nanogpt/model/gpt.py": ("        x = x + self.attn(", "        x = x * 1 + self.attn("),
        "nanogpt/data/byte_pairs.py": ('"""', '"""A comment. '),
    }
    for path, (old, new) in edits.items():
        replacement(path, old, new)(project)
    with open(project / "nanogpt/inference/prompts.py", "a") as file:
        file.write("\n\ndef more():\n    return 1\n")
    jobs = jobs_of(why(project, SAMPLES, "--json"))
    assert jobs == {
        "train one": ["nanogpt.model.gpt: Block.forward changed"],
        "sample one": [
            "nanogpt.inference.prompts: more is new",
            "nanogpt.model.gpt: Block.forward changed",
        ],
    }
    assert planned_by_snakemake(project, SAMPLES) == {"train": 1, "sample": 1}


def test_comments_and_docstrings_are_not_a_cause(project: Path) -> None:
    for path in ("nanogpt/model/gpt.py", "nanogpt/training/loop.py"):
        replacement(path, '"""', '"""Other words. ')(project)
        with open(project / path, "a") as file:
            file.write("# a comment\n")
    assert jobs_of(why(project, SAMPLES, "--json")) == {}
    assert planned_by_snakemake(project, SAMPLES) == {}


def test_edited_adapters_and_commands_are_named(project: Path) -> None:
    with open(project / "workflow/scripts/sample.py", "a") as file:
        file.write("\nassert True\n")
    replacement("workflow/rules/run.smk", "python ", "python -u ")(project)
    assert jobs_of(why(project, SAMPLES, "--json")) == {
        "train one": ["the rule's command, or the module behind an import"],
        "sample one": ["sample: module level changed"],
    }
    assert planned_by_snakemake(project, SAMPLES) == {"train": 1, "sample": 1}


# --- The cache, and unfinished trainings ------------------------------------------------------


def test_cached_results_are_announced_as_restored(
    project: Path, computed: Computed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOGPT_CACHE", str(computed.cache))
    setting("runs", "two", "train", "seed", value=1337)(project)  # the value of `one`
    workflow = workflow_of(project)
    _, jobs, files = find_targets(workflow, "results/two/samples.txt")
    outcomes = Outcomes(workflow).find(workflow.plan(jobs, files))
    assert {str(job): words for job, words in outcomes.items()} == {
        "train two": "restored from the cache"
    }
    made = make(project, "results/two/samples.txt", NANOGPT_CACHE=str(computed.cache))
    assert "(from the cache)" in made.stderr


# --- Two results ------------------------------------------------------------------------------


def test_two_runs_are_compared_by_their_training(done_project: Path) -> None:
    answer = why(done_project, "results/one/eval.json", "results/two/eval.json")
    lines = answer.stdout.splitlines()
    assert lines[0] == "results/one/eval.json -> results/two/eval.json: made differently"
    assert lines[1].split() == ["train", "setting", "train.seed:", "1337", "->", "2"]


def test_a_result_from_another_machine_differs_in_its_environment(project: Path) -> None:
    manifest = project / "results/one/eval.manifest.json"
    made = json.loads(manifest.read_text())
    made["environment"] |= {"torch": "1.0", "threads": 7}
    manifest.write_text(json.dumps(made))
    here = why(project, "results/one/eval.json").stdout.splitlines()
    assert here[0] == "results/one/eval.json: up to date"
    assert here[-1].startswith("  torch: 1.0 -> ")
    both = why(project, "results/one/eval.json", "results/two/eval.json").stdout
    assert "environment torch: 1.0 -> " in both
    assert "environment threads: 7 -> 1" in both
