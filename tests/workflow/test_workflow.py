"""The workflow's promises, kept by the real Snakefile in a copy with tiny settings."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
MIRROR = os.environ.get("NANOGPT_MIRROR")

CONFIG = {
    "corpora": {"play": {"builtin": "playwright", "n_characters": 20_000}},
    "datasets": {"play": {}},
    "models": {"tiny": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "dropout": 0.1}},
    "defaults": {
        "model": "tiny",
        "train": {
            "max_iters": 20,
            "batch_size": 4,
            "warmup_iters": 2,
            "eval_interval": 10,
            "eval_iters": 2,
        },
        "eval": {"eval_iters": 2},
        "sample": {"num_samples": 2, "max_new_tokens": 40},
        "bench": {"burn_in": 1, "steps": 2},
    },
    "runs": {"one": {"dataset": "play"}, "two": {"dataset": "play", "train": {"seed": 2}}},
    "report": {"runs": ["one", "two"]},
}
AFTER_TRAIN = {"train", "eval", "sample", "tensorboard", "bench_report"}
ALL_RULES = {"prepare", "ngram", "bench", *AFTER_TRAIN}
# The runs share dataset and model, and so one count of n-grams and one benchmark.
RETRAINING = {**dict.fromkeys(AFTER_TRAIN, 2), "bench_report": 1}
REMODELLING = {**RETRAINING, "bench": 1}
RETOKENIZING = {**REMODELLING, "prepare": 1, "ngram": 1}


def snakemake(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Snakemake as a user would, on one core."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("NANOGPT_", "PYTHONPATH"))}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=project,
        env={**own, "NANOGPT_CACHE": "off", **environment},
        capture_output=True,
        text=True,
    )


def planned(project: Path, *arguments: str) -> dict[str, int]:
    """How many jobs of each rule a dry run plans."""
    run = snakemake(project, "-n", *arguments)
    assert run.returncode == 0, run.stderr
    table = run.stdout.partition("Job stats:")[2] + run.stderr.partition("Job stats:")[2]
    counts = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    return {rule: n for rule, n in counts.items() if rule not in ("all", "total")}


def edit_config(project: Path, edit: Callable[[dict], object]) -> None:
    config = yaml.safe_load((project / "config.yaml").read_text())
    edit(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def results(project: Path, *patterns: str) -> dict[str, bytes]:
    """The bytes of some results, by path."""
    found = [path for pattern in patterns for path in project.glob(pattern)]
    assert found
    return {str(path.relative_to(project)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the tiny config, in which nothing was computed."""
    project = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "nanogpt", "workflow", "profiles", "envs", "resources"):
        source = PROJECT / name
        if source.is_file():
            shutil.copy(source, project)
        else:
            ignored = shutil.ignore_patterns("__pycache__", "corpora", "*.txt")
            shutil.copytree(source, project / name, ignore=ignored)
    (project / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return project


@pytest.fixture(scope="module")
def done_project(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which everything was computed."""
    project = tmp_path_factory.mktemp("done") / "checkout"
    shutil.copytree(empty_project, project)
    run = snakemake(project)
    assert run.returncode == 0, run.stderr
    return project


@pytest.fixture
def project(done_project: Path, tmp_path: Path) -> Path:
    """A copy, to be changed, of a checkout in which everything was computed."""
    return Path(shutil.copytree(done_project, tmp_path / "checkout"))


def test_one_command_makes_samples_evaluations_and_the_report(done_project: Path) -> None:
    samples = (done_project / "results/one/samples.txt").read_text()
    assert samples.startswith("# 2 samples of one\n")
    evaluation = json.loads((done_project / "results/one/eval.json").read_text())
    assert evaluation["val"]["n_tokens"] == 1999
    assert evaluation["source"]["excess_percent"] > 0
    page = (done_project / "results/report/index.html").read_text()
    assert "one" in page
    assert "two" in page
    assert not list(done_project.glob(".nanogpt/state/*")), "a finished training leaves no state"


def test_every_stage_leaves_a_manifest_that_holds(done_project: Path) -> None:
    stages = {
        json.loads(path.read_text())["stage"] for path in done_project.rglob("*.manifest.json")
    }
    assert stages == ALL_RULES | {"generate"}
    code = "from nanogpt.cli.main import main; main(['verify'])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=done_project, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
    assert run.stdout.endswith(" 0 problems\n")


def test_a_second_call_has_nothing_to_do(done_project: Path) -> None:
    run = snakemake(done_project)
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout + run.stderr


@pytest.mark.slow
def test_the_same_config_gives_the_same_bytes_again(project: Path) -> None:
    kept = ("results/*/model/*", "results/*/eval.json", "results/*/samples.txt")
    kept += ("results/datasets/play/*.bin", "resources/corpora/play/input.txt")
    before = results(project, *kept)
    curves = _read(project, "one/metrics.jsonl")
    for name in ("results", "resources/corpora"):
        shutil.rmtree(project / name)
    assert snakemake(project).returncode == 0
    assert results(project, *kept) == before
    timeless = [_without_time(text) for text in (curves, _read(project, "one/metrics.jsonl"))]
    assert timeless[0] == timeless[1]


def _read(project: Path, name: str) -> str:
    return (project / "results" / name).read_text()


def _without_time(metrics: str) -> list[dict]:
    lines = [json.loads(line) for line in metrics.splitlines()]
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def _edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(project: Path) -> None:
        text = (project / path).read_text()
        assert old in text
        (project / path).write_text(text.replace(old, new, 1))

    return apply


def _setting(*keys: str, value: object) -> Callable[[Path], None]:
    def apply(project: Path) -> None:
        def edit(config: dict) -> None:
            for key in keys[:-1]:
                config = config.setdefault(key, {})
            config[keys[-1]] = value

        edit_config(project, edit)

    return apply


EDITS = {
    "a sampling setting of one run": (
        _setting("runs", "one", "sample", "temperature", value=0.5),
        {"sample": 1, "bench_report": 1},
    ),
    "an evaluation setting of one run": (
        _setting("runs", "one", "eval", "seed", value=3),
        {"eval": 1, "bench_report": 1},
    ),
    "a training setting of one run": (
        _setting("runs", "one", "train", "learning_rate", value=0.002),
        dict.fromkeys(AFTER_TRAIN, 1),
    ),
    "how a training is looked at": (
        _setting("runs", "one", "train", "log_interval", value=5),
        dict.fromkeys(AFTER_TRAIN, 1),
    ),
    "milestones": (
        _setting("runs", "one", "train", "milestones", value=[5]),
        dict.fromkeys(AFTER_TRAIN, 1),
    ),
    "a model setting of one run": (
        _setting("runs", "one", "model", value={"preset": "tiny", "dropout": 0.2}),
        {**dict.fromkeys(AFTER_TRAIN, 1), "bench": 2},  # of two models now
    ),
    "the dataset of one run": (
        lambda project: (
            _setting("datasets", "again", value={"corpus": "play"})(project),
            _setting("runs", "one", "dataset", value="again")(project),
        ),
        {**dict.fromkeys(AFTER_TRAIN, 1), "prepare": 1, "ngram": 1, "bench": 2},
    ),
    "a setting of the benchmark": (
        _setting("defaults", "bench", "steps", value=3),
        {"bench": 1, "bench_report": 1},
    ),
    "a sampling setting of all runs": (
        _setting("defaults", "sample", "seed", value=3),
        {"sample": 2, "bench_report": 1},
    ),
    "a default said where it held already": (
        _setting("runs", "one", "train", "beta1", value=0.9),
        {},
    ),
    "a number written in another way": (
        _setting("runs", "two", "train", "seed", value="2"),
        {},
    ),
    "a mirror": (_setting("mirrors", value=["/somewhere"]), {}),
    "a model setting of all runs": (
        _setting("models", "tiny", "n_embd", value=32),
        REMODELLING,
    ),
    "the split": (_setting("datasets", "play", "val_ratio", value=0.2), RETOKENIZING),
    "the corpus": (
        _setting("corpora", "play", "seed", value=2),
        {**RETOKENIZING, "generate": 1},
    ),
    "how newlines are read": (_setting("corpora", "play", "newlines", value="lf"), RETOKENIZING),
    "a setting of another tokenizer": (_setting("datasets", "play", "vocab_size", value=300), {}),
    "the tokenizer": (_setting("datasets", "play", "tokenizer", value="byte"), RETOKENIZING),
    "the report's runs": (_setting("report", "runs", value=["one"]), {"bench_report": 1}),
    "a run that nobody asked for": (_setting("runs", "three", value={"dataset": "play"}), {}),
    "a comment in config.yaml": (_edit("config.yaml", "runs:", "# mine\nruns:"), {}),
    "a comment in the model": (_edit("nanogpt/model.py", "class GPT(", "# A\nclass GPT("), {}),
    "a docstring of the model": (_edit("nanogpt/model.py", "Logits (B, T, V)", "The logits"), {}),
    "a comment in an adapter": (_edit("workflow/scripts/eval.py", "stage(", "# A\nstage("), {}),
    "the command of rule train": (
        _edit("workflow/rules/run.smk", "python workflow", "python -u workflow"),
        RETRAINING,
    ),
}


# What an edit of a module's code does again. A module that is not named here is an error.
NOTHING: dict[str, int] = {}
MODULES = {
    "__init__": NOTHING,
    "bench": {"bench": 1, "bench_report": 1},
    "cache": NOTHING,
    "checkpoint": REMODELLING,
    "cli": NOTHING,
    "compare": {"bench_report": 1},
    "config": NOTHING,
    "corpus": RETOKENIZING,
    "dataset": {**REMODELLING, "ngram": 1},
    "device": REMODELLING,
    "download": NOTHING,  # of a built-in corpus
    "evaluate": {"eval": 2, "bench_report": 1},
    "events": {"tensorboard": 2, "bench_report": 1},
    "files": {**RETOKENIZING, "generate": 1},
    "generate": {"eval": 2, "sample": 2, "bench": 1, "bench_report": 1},
    "interchange": NOTHING,
    "lock": NOTHING,
    "loss": REMODELLING,
    "manifest": NOTHING,
    "metrics": {"tensorboard": 2, "bench_report": 1},
    "model": REMODELLING,
    "ngram": {"ngram": 1, "bench_report": 1},
    "optimizer": REMODELLING,
    "playwright": {**RETOKENIZING, "generate": 1},
    "plots": {"bench_report": 1},
    "prepare": RETOKENIZING,
    "report": {"bench_report": 1},
    "results": {"bench_report": 1},
    "signals": NOTHING,
    "sizing": {"bench": 1, "bench_report": 1},
    "stage": NOTHING,
    "state": NOTHING,
    "storage": NOTHING,
    "tokenizer": RETOKENIZING,
    "train": REMODELLING,
}


@pytest.mark.parametrize("module", sorted(p.stem for p in (PROJECT / "nanogpt").glob("*.py")))
def test_an_edit_of_code_does_again_what_that_code_makes(project: Path, module: str) -> None:
    with open(project / f"nanogpt/{module}.py", "a") as file:
        file.write("\nassert True\n")
    assert planned(project) == MODULES[module]


def test_a_comment_in_every_file_of_code_does_nothing_again(project: Path) -> None:
    edited = [*project.glob("nanogpt/*.py"), *project.glob("workflow/**/*.py")]
    edited += [project / "Snakefile", *project.glob("workflow/rules/*.smk")]
    assert len(edited) > 40
    for path in edited:
        path.write_text(f"# A comment.\n{path.read_text()}\n# And one at the end.\n")
    assert planned(project) == {}


@pytest.mark.parametrize("what", EDITS)
def test_only_what_changed_is_done_again(project: Path, what: str) -> None:
    edit, expected = EDITS[what]
    edit(project)
    assert planned(project) == expected


def test_the_command_line_overrides_every_run(project: Path) -> None:
    assert planned(project, "--config", "train={beta2: 0.95}") == RETRAINING


def test_a_dropped_text_becomes_a_run_and_an_older_one_over_it_is_noticed(project: Path) -> None:
    text = project / "resources/texts/mybook.txt"
    text.write_text("It was a bright cold day, and the clocks were striking.\n" * 40)
    target = "results/mybook/samples.txt"
    run = snakemake(project, target)
    assert run.returncode == 0, run.stderr
    assert planned(project, target) == {}
    text.write_text("Call me whatever you like, but call me early for breakfast.\n" * 40)
    os.utime(text, (1_000_000_000, 1_000_000_000))
    assert planned(project, target) == {"prepare": 1, "train": 1, "sample": 1}


ESSAYS = [f"The {word} essay is short, and ends here.\n" * 3 for word in ("first", "next", "last")]
GROUP_JOBS = {"count": 3, "merge": 1, "encode": 3, "prepare": 1}


@pytest.fixture
def essays(project: Path) -> Path:
    """A checkout with a corpus of 40 files in a directory, which make three groups."""
    directory = project / "texts/my éssays"
    directory.mkdir(parents=True)
    for number in range(40):
        (directory / f"{number:02} é.txt").write_text(ESSAYS[number % 3])
    (directory / "notes.md").write_text("no essay")
    edit_config(project, lambda c: c["corpora"].update(essays={"files": "texts/my éssays"}))
    edit_config(project, lambda c: c["datasets"].update(essays={}))
    return project


def test_a_corpus_of_many_files_goes_through_jobs_of_groups(essays: Path) -> None:
    target = "results/datasets/essays/meta.json"
    assert planned(essays, target) == GROUP_JOBS
    run = snakemake(essays, target)
    assert run.returncode == 0, run.stderr
    meta = json.loads((essays / target).read_text())
    assert len(meta["files"]) == 40
    assert meta["train"]["n_characters"] + meta["val"]["n_characters"] == sum(
        len(ESSAYS[number % 3]) for number in range(40)
    )
    left = [path.name for path in (essays / "results/datasets/essays/groups").rglob("*.*")]
    assert left
    assert all(name.endswith((".log", ".benchmark.tsv")) for name in left), "parts are temporary"
    assert planned(essays, target) == {}
    verify = "from nanogpt.cli.main import main; main(['verify', 'results/datasets/essays'])"
    verified = subprocess.run([sys.executable, "-c", verify], cwd=essays, capture_output=True)
    assert verified.returncode == 0, verified.stdout
    # An edit, a file more, one replaced by an older one.
    (essays / "texts/my éssays/zz.txt").write_text(ESSAYS[0])
    assert planned(essays, target) == GROUP_JOBS
    (essays / "texts/my éssays/zz.txt").unlink()
    assert planned(essays, target) == {}
    first = essays / "texts/my éssays/00 é.txt"
    first.write_text("An essay that is older than all the others.\n")
    os.utime(first, (1_000_000_000, 1_000_000_000))
    assert planned(essays, target) == GROUP_JOBS
    edit_config(essays, lambda c: c["datasets"]["essays"].update(val_ratio=0.2))
    assert planned(essays, target) == GROUP_JOBS


def test_what_an_aborted_call_left_is_made_again_when_settings_changed(essays: Path) -> None:
    target = "results/datasets/essays/meta.json"
    aborted = snakemake(essays, "--notemp", "--until", "merge", "--", target)
    assert aborted.returncode == 0, aborted.stderr
    assert planned(essays, target) == {"encode": 3, "prepare": 1}, "what is done stays"
    edit_config(essays, lambda c: c["datasets"]["essays"].update(tokenizer="byte"))
    assert planned(essays, target) == GROUP_JOBS
    run = snakemake(essays, target)
    assert run.returncode == 0, run.stderr
    assert json.loads((essays / target).read_text())["vocab_size"] == 256
    assert planned(essays, target) == {}


def test_ten_thousand_small_files_make_few_jobs(project: Path) -> None:
    directory = project / "texts"
    directory.mkdir()
    for number in range(10_000):
        (directory / f"{number}.txt").write_text("a small text\n")
    edit_config(project, lambda c: c["corpora"].update(many={"files": "texts"}))
    edit_config(project, lambda c: c["datasets"].update(many={}))
    jobs = planned(project, "results/datasets/many/meta.json")
    assert jobs == {"count": 64, "merge": 1, "encode": 64, "prepare": 1}


@pytest.mark.slow
def test_the_bytes_of_a_dataset_depend_on_no_number_of_cores(essays: Path) -> None:
    edit_config(essays, lambda c: c["datasets"]["essays"].update(tokenizer="bpe", vocab_size=280))
    made = []
    for cores in ("1", "3"):
        run = snakemake(essays, "--cores", cores, "results/datasets/essays/meta.json")
        assert run.returncode == 0, run.stderr
        made.append(
            results(essays, "results/datasets/essays/*.bin", "results/datasets/essays/*.json")
        )
        shutil.rmtree(essays / "results/datasets/essays")
    for files in made:
        del files["results/datasets/essays/prepare.manifest.json"]
    assert made[0] == made[1]


def test_a_dataset_can_have_the_tokenizer_of_another(essays: Path) -> None:
    other = {"corpus": "play", "tokenizer": "essays"}
    edit_config(essays, lambda c: c["datasets"]["essays"].update(tokenizer="bpe", vocab_size=280))
    edit_config(essays, lambda c: c["datasets"].update(other=other))
    target = "results/datasets/other/tokenizer.json"
    assert planned(essays, target) == {**GROUP_JOBS, "prepare": 2}
    run = snakemake(essays, target)
    assert run.returncode == 0, run.stderr
    made = results(essays, "results/datasets/*/tokenizer.json")
    assert made[target] == made["results/datasets/essays/tokenizer.json"]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ("texts/none", "corpora.essays.files: there is no file texts/none"),
        ("workflow/rules", "there is no .txt, .jsonl"),
        ("texts/*.text", "no file matches the pattern texts/*.text"),
        ("../*.txt", "the pattern ../*.txt leads out of the project"),
        ("/usr/share/doc/**/*.txt", "leads out of the project"),
    ],
)
def test_a_corpus_without_files_is_told_before_any_job_starts(
    essays: Path, files: str, named: str
) -> None:
    edit_config(essays, lambda c: c["corpora"]["essays"].update(files=files))
    assert named in error_of(snakemake(essays, "results/datasets/essays/meta.json"))


def test_braces_in_a_name_are_told_before_any_job_starts(essays: Path) -> None:
    (essays / "texts/my éssays/{a}.txt").write_text(ESSAYS[0])
    error = error_of(snakemake(essays, "results/datasets/essays/meta.json"))
    assert "{a}.txt" in error
    assert "rename the file" in error


def test_a_bad_file_among_many_is_named_in_one_line(essays: Path) -> None:
    (essays / "texts/my éssays/11 é.txt").write_bytes(b"caf\xc3\xa9 " * 99 + b"\xff")
    error = error_of(snakemake(essays, "results/datasets/essays/meta.json"))
    assert "texts/my éssays/11 é.txt" in error
    assert "0xff at offset 594" in error


def test_a_text_whose_name_can_name_no_run_is_told(project: Path) -> None:
    (project / "resources/texts/my book.txt").write_text("It was a bright cold day.\n")
    error = error_of(snakemake(project, "results/one/samples.txt"))
    assert "my book.txt" in error
    assert "rename the text" in error


def test_a_changed_prompt_file_is_noticed(project: Path) -> None:
    (project / "prompt.txt").write_text("[Enter ")
    edit_config(project, lambda c: c["defaults"]["sample"].update(start="FILE:prompt.txt"))
    target = "results/one/samples.txt"
    assert snakemake(project, target).returncode == 0
    assert "[Enter " in _read(project, "one/samples.txt")
    (project / "prompt.txt").write_text("Where is ")
    assert planned(project, target) == {"sample": 1}


@pytest.mark.mirror
@pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set: nothing to download here")
def test_writing_down_the_digest_of_a_download_does_nothing_again(project: Path) -> None:
    shipped = yaml.safe_load((PROJECT / "config.yaml").read_text())["corpora"]["shakespeare"]
    digest = shipped.pop("sha256")
    edit_config(project, lambda c: c["corpora"].update(shakespeare=shipped))
    edit_config(project, lambda c: c["datasets"].update(shakespeare={}))
    target = "results/datasets/shakespeare/meta.json"
    run = snakemake(project, target, NANOGPT_MIRROR=str(MIRROR))
    assert run.returncode == 0, run.stderr
    log = project / "resources/corpora/shakespeare/input.txt.download.log"
    assert f"sha256: {digest}" in log.read_text()
    edit_config(project, lambda c: c["corpora"]["shakespeare"].update(sha256=digest))
    edit_config(project, lambda c: c.update(mirrors=["/somewhere"]))
    assert planned(project, target) == {}
    edit_config(project, lambda c: c["corpora"]["shakespeare"].update(sha256="0" * 64))
    assert planned(project, target) == {"download": 1, "prepare": 1}


@pytest.mark.slow
def test_going_back_to_an_earlier_config_trains_nothing(project: Path, tmp_path: Path) -> None:
    """The artifacts of the earlier config come from the cache, and every byte is as it was."""
    kept = ("results/one/model/*", "results/one/metrics.jsonl", "results/one/*.json*")
    kept += ("results/one/samples.txt", "results/datasets/play/*.bin")
    targets = ("results/one/samples.txt", "results/one/eval.json")
    cached = {"NANOGPT_CACHE": str(tmp_path / "cache")}
    shutil.rmtree(project / "results")
    assert snakemake(project, *targets, **cached).returncode == 0
    first = results(project, *kept)
    rate = _setting("runs", "one", "train", "learning_rate", value=0.002)
    rate(project)
    assert snakemake(project, *targets, **cached).returncode == 0
    second = results(project, *kept)
    weights = "results/one/model/model.safetensors"
    assert second[weights] != first[weights]
    edit_config(project, lambda config: config["runs"]["one"].pop("train"))
    assert snakemake(project, *targets, **cached).returncode == 0
    assert results(project, *kept) == first, "manifests and times as well"
    for stage in ("train", "eval", "sample"):
        assert "restored from the cache" in _read(project, f"one/{stage}.log")
    assert "step" not in _read(project, "one/train.log")
    # A run of another name, but of the same settings, is trained by nobody either.
    _setting("runs", "third", value={"dataset": "play"})(project)
    assert snakemake(project, "results/third/eval.json", **cached).returncode == 0
    assert "restored from the cache" in _read(project, "third/train.log")
    evaluation = json.loads(_read(project, "third/eval.json"))
    assert evaluation["run"] == "third"
    verify = "from nanogpt.cli.main import main; main(['verify'])"
    verified = subprocess.run([sys.executable, "-c", verify], cwd=project, capture_output=True)
    assert verified.returncode == 0, verified.stdout


def error_of(run: subprocess.CompletedProcess) -> str:
    """The one line that tells a user's mistake."""
    assert run.returncode != 0
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, run.stderr
    assert "Traceback" not in run.stderr
    return errors[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["results/oen/samples.txt"], "no run `oen`; did you mean `one`?"),
        (["results/one/samples.txt", "--config", "train={max_itrs: 3}"], "train.max_itrs"),
        (["results/one/samples.txt", "--config", "train={max_iters: many}"], "train.max_iters"),
        (["results/one/samples.txt", "--config", "model={n_head: 3}"], "not divisible by n_head"),
        (["results/datasets/nosuch/train.bin"], "no dataset `nosuch`"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_any_job_starts(
    empty_project: Path, arguments: list[str], named: str
) -> None:
    run = snakemake(empty_project, *arguments)
    assert named in error_of(run)
    assert not (empty_project / "results").exists()


@pytest.mark.parametrize(
    ("text", "overrides", "named"),
    [
        (b"", {}, "empty"),
        (b"PK\x03\x04\x00\x00\x00binary" * 99, {}, "binary"),
        (b"caf\xc3\xa9 " * 99 + b"\xff", {}, "0xff"),
        (b"thirty characters of some text", {}, "fewer than one window"),
        (b"some words to learn " * 99, {"device": "cuda"}, "cuda"),
        (b"some words to learn " * 99, {"learning_rate": 1e30, "min_lr": 1}, "diverged"),
    ],
    ids=["empty", "binary", "undecodable", "short", "no GPU", "diverged"],
)
def test_a_stage_that_cannot_go_on_says_why_in_one_line_and_leaves_nothing(
    project: Path, text: bytes, overrides: dict, named: str
) -> None:
    (project / "resources/texts/bad.txt").write_bytes(text)
    edit_config(project, lambda config: config["defaults"]["train"].update(overrides))
    run = snakemake(project, "results/bad/samples.txt")
    assert named in error_of(run)
    assert not list(project.glob("results/bad/**/*.safetensors"))
    assert not list(project.glob("results/**/*.tmp"))


@pytest.mark.slow
def test_a_training_that_diverged_is_shown_as_such_with_its_curve(project: Path) -> None:
    overrides = {"learning_rate": 1e30, "min_lr": 1}
    edit_config(project, lambda config: config["runs"]["one"].update(train=overrides))
    assert "diverged" in error_of(snakemake(project, "results/one/samples.txt"))
    code = "from nanogpt.cli.main import main; main(['report'])"
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)
    report = (project / "results/report/now/report.md").read_text()
    assert "| one (diverged) |" in report
    assert "- one (diverged): training diverged: " in report


def test_a_run_that_stands_in_the_config_twice_is_told(project: Path) -> None:
    with open(project / "config.yaml", "a") as file:
        file.write("runs: {three: {dataset: play}}\n")
    assert "`runs` stands in line" in error_of(snakemake(project, "results/one/samples.txt"))


def test_a_missing_text_is_named(project: Path) -> None:
    edit_config(project, lambda c: c["corpora"].update(gone={"files": "nowhere/gone.txt"}))
    edit_config(project, lambda c: c["datasets"].update(gone={}))
    assert "nowhere/gone.txt" in error_of(snakemake(project, "results/gone/samples.txt"))


def test_a_download_that_is_refused_names_the_three_ways_out(project: Path) -> None:
    url = {"url": "http://127.0.0.1:9/corpus.txt", "sha256": "0" * 64}
    edit_config(project, lambda c: c["corpora"].update(far=url))
    edit_config(project, lambda c: c["datasets"].update(far={}))
    error = error_of(snakemake(project, "results/far/samples.txt"))
    for way_out in ("NANOGPT_MIRROR", "resources/corpora/far/corpus.txt", "make demo"):
        assert way_out in error
    assert not (project / "resources/corpora/far/corpus.txt").exists()


def test_a_corpus_put_there_by_hand_is_held_to_its_digest(project: Path) -> None:
    url = {"url": "http://127.0.0.1:9/corpus.txt", "sha256": "0" * 64}
    edit_config(project, lambda c: c["corpora"].update(far=url))
    edit_config(project, lambda c: c["datasets"].update(far={}))
    by_hand = project / "resources/corpora/far/corpus.txt"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text("not what was promised")
    assert "0" * 64 in error_of(snakemake(project, "results/far/samples.txt"))


def test_a_dry_run_imports_no_torch(done_project: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "-n"]
    run = subprocess.run(command, cwd=done_project, capture_output=True, text=True)
    assert run.returncode == 0
    imported = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert "nanogpt.config" in imported
    assert not imported & {"torch", "matplotlib", "httpx"}


@pytest.mark.mirror
@pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set: no Tiny Shakespeare here")
def test_tiny_shakespeare_comes_from_a_mirror_and_is_split_as_in_nanogpt(project: Path) -> None:
    shutil.copy(PROJECT / "config.yaml", project)
    target = "results/datasets/shakespeare_char/meta.json"
    run = snakemake(project, target, NANOGPT_MIRROR=str(MIRROR))
    assert run.returncode == 0, run.stderr
    meta = json.loads((project / target).read_text())
    assert meta["vocab_size"] == 65
    assert (meta["train"]["n_tokens"], meta["val"]["n_tokens"]) == (1_003_854, 111_540)


@pytest.mark.mirror
@pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set: no GPT-2 vocabulary here")
def test_gpt2_s_tokens_come_by_a_mirror_and_are_as_many_as_nanogpt_s(project: Path) -> None:
    shutil.copy(PROJECT / "config.yaml", project)
    target = "results/datasets/shakespeare/meta.json"
    run = snakemake(project, target, NANOGPT_MIRROR=str(MIRROR))
    assert run.returncode == 0, run.stderr
    meta = json.loads((project / target).read_text())
    assert meta["vocab_size"] == 50_257
    assert (meta["train"]["n_tokens"], meta["val"]["n_tokens"]) == (301_966, 36_059)
    assert planned(project, target) == {}


def test_the_report_is_made_again_without_training(done_project: Path) -> None:
    page = "results/report/index.html"
    assert planned(done_project, "--forcerun", "bench_report", "--", page) == {"bench_report": 1}


def test_a_rule_says_in_one_line_what_it_made(project: Path) -> None:
    (project / "results/one/samples.txt").unlink()
    run = snakemake(project, "results/one/samples.txt")
    assert run.returncode == 0
    assert "\nsample one: 2 samples of 40 tokens\n" in run.stderr


def test_a_sweep_is_a_run_of_each_combination_and_one_benchmark_of_each_model(
    project: Path,
) -> None:
    grid = {"dataset": "play", "sweep": {"seed": [1, 2, 3], "model.n_layer": [1, 2]}}
    edit_config(
        project,
        lambda config: config.update(runs={"grid": grid}, report={"runs": ["grid"]}),
    )
    assert planned(project) == {**dict.fromkeys(AFTER_TRAIN, 6), "bench_report": 1, "bench": 2}
    samples = "results/grid.seed-2.n_layer-1/samples.txt"
    assert planned(project, samples) == {"train": 1, "sample": 1}
    run = snakemake(project, "-n", "results/grid/samples.txt")
    assert run.returncode == 1
    assert "error: runs: `grid` is a sweep; its runs are `grid.seed-1.n_layer-1`" in run.stderr


def test_all_benchmarks_of_the_report_can_be_asked_for(project: Path) -> None:
    assert planned(project, "--forcerun", "bench", "--", "benches") == {"bench": 1, "benches": 1}


@pytest.mark.slow
def test_snakemakes_own_report_has_every_result_with_its_caption(project: Path) -> None:
    run = snakemake(project, "--report", "results/report/workflow.html")
    assert run.returncode == 0, run.stderr
    page = (project / "results/report/workflow.html").read_text()
    captions = sorted((PROJECT / "workflow/report").glob("*.rst"))
    assert len(captions) == 15
    for caption in captions:
        words = re.sub(r"``|\{\{.*?\}\}", "\0", caption.read_text()).partition("\0")[0]
        assert " ".join(words.split())[:40] in " ".join(page.split()), caption.name
