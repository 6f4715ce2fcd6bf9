# Helpers and wildcard constraints for all rules. There are no rules here.
#
# A helper turns wildcards into paths or settings. A user's mistake ends the workflow with one line
# before any job starts. Nothing here imports torch, so a dry run is quick.
import gc
import inspect
import math
import os
import re
import sys
from functools import cache, partial, wraps
from pathlib import Path

import yaml

# The version of the package that this workflow needs, as in nanogpt/__init__.py.
VERSION = "1.0.0"

# The directory of this file, which may be on a host. In a module, `workflow.basedir` would be the
# caller's directory.
RULES = workflow.current_basedir
PROJECT = Path(str(RULES)).parents[1]
if " " in sys.executable:
    sys.exit(
        f"error: the path of Python, {sys.executable}, has a space, and Snakemake can't start "
        "scripts from there; move the checkout, or create the environment elsewhere"
    )
has_package = (PROJECT / "nanogpt").is_dir()
if has_package:
    sys.path.insert(0, str(PROJECT))
try:
    from nanogpt import __version__ as installed
except ImportError:
    installed = "no version"
if installed != VERSION:
    sys.exit(
        f"error: this workflow needs nanogpt {VERSION}, but {installed} is installed; "
        f"run `pip install .` in a checkout of {VERSION}"
    )

from nanogpt.config.initial import find_tokenizer
from nanogpt.config.loading import add_fragments, find_texts, load, read_mapping
from nanogpt.config.messages import look_up
from nanogpt.config.patterns import NAME, read_processes, read_sharded
from nanogpt.config.resolving import (
    bench_runs,
    check_exports,
    corpus_of,
    resolve_run,
    run_parameters,
)
from nanogpt.errors import UserError, plural
from nanogpt.project import (
    HERE,
    group_name,
    keep_torch_quiet,
    let_threads_sleep,
    name_user,
    token_file,
)
from nanogpt.artifacts.code_digest import code_digest
from nanogpt.artifacts.code_functions import adapters_of
from nanogpt.artifacts.invocations import register
from nanogpt.data.sources import find_files
from nanogpt.files import clocks
from nanogpt.planning import grouping, needs, partitions, stages


def search_first(variable, directory):
    """Put a directory first in a search path of the environment, which jobs inherit."""
    others = [os.environ[variable]] if variable in os.environ else []
    os.environ[variable] = os.pathsep.join([str(directory), *others])


def script_path(stage):
    """The script of a stage. If the workflow is on a host, this is Snakemake's copy of it."""
    script = RULES.join(f"../scripts/{stage}.py")
    path = Path(os.path.normpath(str(script)))
    return path if path.is_file() else Path(workflow.sourcecache.get_path(script))


# So that jobs find this checkout's package and the Python that runs Snakemake without activation.
if has_package:
    search_first("PYTHONPATH", PROJECT)
search_first("PATH", Path(sys.executable).parent)
# The command of rule train uses this variable, so it's the same wherever the workflow is.
os.environ.update(NANOGPT_TRAIN=str(script_path("train")))
let_threads_sleep()
keep_torch_quiet()
name_user()


# Records this process, so that another command can tell who has locked the directory.
onstart:
    register()
    one_line_errors(check_partitions)()
    one_line_errors(check_dates)()
    warn_about_retries()


wildcard_constraints:
    corpus=NAME.pattern,
    dataset=NAME.pattern,
    run=NAME.pattern,


# The number of a group, as `group_name` writes it.
GROUP = r"\d\d\d|[1-9]\d\d\d+"

BRACES = "Snakemake treats braces in a name as wildcards"


def one_line_errors(function):
    """Wrap a function so that a user's mistake in it ends the workflow with one line."""

    @wraps(function)
    def checked(*arguments):
        try:
            return function(*arguments)
        except UserError as error:
            sys.exit(f"error: {error}")

    return checked


def known_signature(function):
    """Store the signature of a function, which Snakemake looks up several times for each job."""
    function.__signature__ = inspect.signature(function)
    return function


def has_our_settings(path):
    """True if a config file has our settings at top level. A caller may have them under a key."""
    if Path(workflow.basedir) in (PROJECT, PROJECT / "workflow"):
        return True
    with open(path) as file:
        return set(yaml.safe_load(file) or {}) <= set(config)


# This refuses duplicate keys. Snakemake would silently use the last one.
for path in workflow.configfiles:
    if str(path).endswith((".yaml", ".yml")) and has_our_settings(path):
        one_line_errors(read_mapping)(path)

# This adds to Snakemake's own mapping, which scripts see.
one_line_errors(add_fragments)(config)
CONFIG = one_line_errors(load)(config, find_texts())
# The settings of thousands of runs stay, so Python needn't look for garbage among them.
gc.freeze()


@cache
@one_line_errors
def find_run(name):
    """The resolved settings of the run with this name."""
    return resolve_run(CONFIG, name)


def any_of(names):
    """A pattern that matches exactly these names."""
    return "|".join(map(re.escape, names)) or "(?!)"


def not_one_of(names):
    """A pattern that matches other names than these. A slash must follow."""
    return rf"(?!(?:{any_of(names)})/){NAME.pattern}"


CALLER = workflow.modifier


def used_rule(name):
    """A rule, or None if a workflow that uses this one leaves it out.

    `rules` also has entries for rules that are left out.
    """
    used_name = CALLER.avail_rulename(name)
    return workflow.get_rule(used_name) if workflow.is_rule(used_name) else None


ENSEMBLES = [name for name, entry in CONFIG.runs.items() if entry.ensemble]


def of_members(name):
    """An input function: this file of the model of each run in an ensemble, in order."""
    return lambda wildcards: [
        f"results/{run}/model/{name}" for run in find_run(wildcards.run).ensemble
    ]


def only_for(is_one, *names):
    """Let these rules make files only for datasets of which this is true.

    A wildcard constraint would need the answer for all datasets when the workflow is read, and some
    answers take long.
    """
    for one in filter(None, map(used_rule, names)):
        one.is_producer = partial(is_producer_for, is_one, one, one.is_producer)


def is_producer_for(is_one, rule, matches, path):
    """Whether a rule's outputs match a path, and it's that of a dataset of which this is true."""
    return matches(path) and is_one(rule.get_wildcards(path)["dataset"])


def corpora_with(source):
    """The corpora with this source, `url` or `builtin`, by name."""
    return {
        name: corpus
        for name, corpus in CONFIG.corpora.items()
        if getattr(corpus, source)
    }


@cache
@one_line_errors
def corpus_files(dataset):
    """The files of a dataset's corpus, in order."""
    look_up(CONFIG.datasets, dataset, "datasets", "dataset")
    name = corpus_of(CONFIG, dataset)
    files = find_files(name, CONFIG.corpora[name])
    for file in files:
        if set("{}") & set(str(file)):
            raise UserError(f"corpora.{name}.files: {file}: {BRACES}; rename the file")
    return files


def dataset_corpus(wildcards):
    """An input function: all files of a dataset's corpus."""
    return own_files(map(str, corpus_files(wildcards.dataset)))


@cache
def file_groups(dataset):
    """The files of a dataset's corpus in groups. One job counts a group, and one encodes it."""
    corpus = CONFIG.corpora[corpus_of(CONFIG, dataset)]
    return grouping.group_files(corpus_files(dataset), corpus)


@one_line_errors
def group_of(wildcards):
    """The group of files that a job reads."""
    dataset, groups = wildcards.dataset, file_groups(wildcards.dataset)
    if int(wildcards.group) < len(groups):
        return groups[int(wildcards.group)]
    raise UserError(
        f"datasets.{dataset}: no group {wildcards.group}: its files are in "
        f"{plural(len(groups), 'group')}; make results/datasets/{dataset}/meta.json instead"
    )


def group_files(wildcards):
    """A params function: the files of a group."""
    return group_of(wildcards).files


def group_inputs(wildcards):
    """An input function: the files of a group; none for a group of many local ones.

    Snakemake looks at each input many times, which takes minutes for 10,000 files. `corpus_state`
    notices changes of local files. With a storage, they must be inputs, because Snakemake then runs
    jobs with local inputs on this machine.
    """
    files, n_bytes = group_of(wildcards)
    are_few = len(files) <= grouping.FEW_FILES or not n_bytes
    return own_files(files) if are_few or COPIES else []


def of_many_files(dataset, names):
    """These intermediate files of a corpus of many files; an empty list for a single file."""
    many = len(corpus_files(dataset)) > 1
    return [f"results/datasets/{dataset}/groups/{name}" for name in names if many]


def of_groups(name):
    """An input function: this file of each group of a corpus of many files."""
    return lambda wildcards: of_many_files(
        wildcards.dataset,
        [
            f"{group_name(group)}/{name}"
            for group in range(len(file_groups(wildcards.dataset)))
        ],
    )


def token_parts(split):
    """An input function: the parts of a split from which many files' datasets are put together.

    They are temporary files of groups or, in a sharded dataset, its shards.
    """

    def paths(wildcards):
        name = wildcards.dataset
        if name not in SHARDED:
            return of_groups(f"{split}.bin")(wildcards)
        shards = range(len(file_groups(name)))
        return [f"results/datasets/{name}/{token_file(split, n)}" for n in shards]

    return paths


def planned_groups(wildcards):
    """An input function: the plan and tokenizer of a corpus of many files."""
    return of_many_files(wildcards.dataset, ["plan.json", "tokenizer.json"])


def given_tokenizer(wildcards):
    """An input function: the file of a tokenizer that isn't the dataset's own, as a list; or empty."""
    return stages.given_tokenizer(CONFIG, wildcards.dataset)


def corpus_state(wildcards):
    """Sizes and mtimes of local files, because replacing one with an older file is a change too."""
    return state_of_corpus(wildcards.dataset)


@cache
def state_of_corpus(dataset):
    """The same for a dataset. Snakemake asks for the params of each job several times."""
    corpus_files(dataset)  # ends with one line if there isn't one
    return stages.corpus_state(CONFIG, dataset)


def url_of(wildcards):
    """The URL of a file in a corpus."""
    return CONFIG.corpora[wildcards.corpus].downloads[wildcards.file]


def builtin_settings(wildcards):
    """The settings that determine a built-in corpus."""
    return {"corpus": stages.builtin_settings(CONFIG, wildcards.corpus)}


def wanted_digest(wildcards):
    """The sha256 in config.yaml, unless the existing file matches it."""
    return stages.wanted_digest(CONFIG, wildcards.corpus, wildcards.file)


def dataset_settings(wildcards):
    """The settings that determine a dataset."""
    return stages.dataset_settings(CONFIG, wildcards.dataset, SHARDED)


@known_signature
@one_line_errors
def prompt_file(wildcards):
    """An input function: the file with a run's prompt, or an empty list."""
    sample = find_run(wildcards.run).sample
    start, file = sample.start, sample.prompt_file
    if file is None:
        return []
    where = f"runs.{wildcards.run}.sample.start: {file or start}"
    # Without this, Snakemake would treat the samples as the user's own files and not make them.
    if not os.path.isfile(file):  # Path.is_file fails if the name is too long
        raise UserError(f"{where}: no such file; create it, or set `start` to a text")
    if set("{}") & set(file):
        raise UserError(f"{where}: {BRACES}; rename the file")
    return own_files([file])


@known_signature
def mixed_ngrams(wildcards):
    """An input function: the n-grams that a run mixes with its GPT, as a list; or empty."""
    path = f"results/{wildcards.run}/model/ngrams.safetensors"
    return [path] if find_run(wildcards.run).ngram else []


def ngram_settings(wildcards):
    """The settings of the n-grams that a run mixes with its GPT."""
    return one_line_errors(stages.ngram_settings)(CONFIG, wildcards.run)


def exported_file(name, form):
    """An input function: this file of a run, if the export format can represent its model."""

    @one_line_errors
    def path(wildcards):
        from nanogpt.interchange.architectures import check_format, check_package

        run = find_run(wildcards.run)
        check_exports(run)
        tokenizer, _ = find_tokenizer(CONFIG, run.dataset)
        check_format(run.model, tokenizer, form, f"runs.{run.name}")
        if not workflow.deployment_settings.deployment_method:
            check_package(form)  # otherwise the job's own environment has it
        return f"results/{run.name}/{name}"

    return path


def dataset_file(name):
    """An input function: this file of the run's dataset."""
    return known_signature(
        lambda wildcards: f"results/datasets/{find_run(wildcards.run).dataset}/{name}"
    )


def dataset_tokens(split):
    """An input function: the token file of the run's or rule's dataset.

    It's an empty list for a sharded dataset. meta.json, which has the shards' digests, stands for
    them, so that a run doesn't have hundreds of inputs.
    """

    def paths(wildcards):
        run = wildcards.get("run")
        name = find_run(run).dataset if run else wildcards.dataset
        path = f"results/datasets/{name}/{token_file(split)}"
        return [] if name in SHARDED else path

    return paths


IMPORTED = one_line_errors(stages.imported_models)(CONFIG)


def imported_files(wildcards):
    """An input function: the files of another program's model."""
    return own_files(stages.imported_files(IMPORTED[wildcards.model]))


def imported_state(wildcards):
    """Sizes and mtimes of these files, because replacing one with an older file is a change too."""
    return stages.imported_state(IMPORTED[wildcards.model])


@known_signature
@one_line_errors
def initial_model(wildcards):
    """An input function: the files of the model that a run starts from, as a list; or empty."""
    find_run(wildcards.run)  # checks the settings
    files = stages.initial_model(CONFIG, wildcards.run)
    if files and set("{}") & set(files[0]):
        where = f"runs.{wildcards.run}.train.init_from"
        directory = os.path.dirname(files[0])
        raise UserError(f"{where}: {directory}: {BRACES}; rename the directory")
    return own_files(files)


@known_signature
def initial_state(wildcards):
    """Sizes and mtimes of the user's own model that a run starts from."""
    return stages.initial_state(CONFIG, wildcards.run)


def run_settings(*groups):
    """A params function: these groups of the run's settings, or its name or dataset."""
    return known_signature(
        lambda wildcards: run_parameters(find_run(wildcards.run), groups)
    )


def bench_settings(wildcards):
    """The settings that determine a benchmark, including those from other groups."""
    return one_line_errors(stages.bench_settings)(CONFIG, wildcards.run)


def stage_code(rule_name):
    """A params function: the digest of a rule's code."""
    return known_signature(lambda wildcards: rule_code(rule_name))


def rule_code(rule_name):
    """The digest of a rule's code."""
    used = used_rule(rule_name)
    return digest_of(rule_name, (used and used.shellcmd) or "")


def dataset_code(wildcards):
    """The digest of all code that prepares a dataset, in one job or in many."""
    return " ".join(map(rule_code, adapters_of("prepare")))


@cache
@one_line_errors
def digest_of(rule_name, command):
    return code_digest(script_path(rule_name), command)


def of_report_runs(path):
    """This file of each run in the report."""
    return expand(path, run=CONFIG.report.runs)


def of_report_models(path):
    """An input function: this file of one run for each distinct model in the report."""
    return lambda wildcards: expand(path, run=sorted(set(report_benches().values())))


@cache
@one_line_errors
def report_benches():
    """For each run in the report, the run whose benchmark it shares."""
    return bench_runs(CONFIG, CONFIG.report.runs)


def of_report_datasets(path):
    """An input function: this file of each dataset in the report."""
    return lambda wildcards: expand(
        path, dataset=sorted({find_run(run).dataset for run in CONFIG.report.runs})
    )


def size_of(input, part):
    """The size of an input in bytes, or of all inputs if there isn't one with this name.

    They may not exist yet. Snakemake then calls the resource function again once they do.
    """
    return type(input)(input.get(part, input)).size


def memory_of(stage, of="run"):
    """A resource function: the megabytes that a stage's job requests from a cluster.

    of: the wildcard with the name of the run or dataset. Each retry requests half as much more, up
    to the memory of the largest node.
    """

    def megabytes(wildcards, input, threads, attempt):
        is_by_settings = stage in needs.BY_SETTINGS
        size = 0 if is_by_settings else size_of(input, "corpus") / 1e6
        name = getattr(wildcards, of, "")
        if stage == "plan":
            needed = needs.planning_mb(
                CONFIG.datasets[name], size, size_of(input, "documents")
            )
        elif stage == "prepare" and not input.get("planned"):
            needed = needs.planning_mb(CONFIG.datasets[name], size)
        else:
            needed = needs.memory_mb(
                CONFIG, stage, name, threads, size, processes=known_processes()
            )
        if attempt == 1:
            return needed
        grown = round(needed * (1 + (attempt - 1) / 2))
        return max(needed, min(grown, partitions.largest_memory() or grown))

    return known_signature(megabytes)


@known_signature
def minutes_to_read(wildcards, input, attempt):
    """A resource function: the minutes that a job which reads a corpus requests from a cluster."""
    # A group of many files has none of them as inputs.
    n_bytes = group_of(wildcards).n_bytes if wildcards.get("group") else 0
    return attempt * needs.minutes_to_read(max(input.size_mb, n_bytes / 1e6))


@known_signature
def minutes_to_plan(wildcards, input, attempt):
    """The same for rule plan, which reads texts only to train byte pairs."""
    if CONFIG.datasets[wildcards.dataset].tokenizer == "bpe":
        return minutes_to_read(wildcards, input, attempt)
    return attempt * needs.minutes_to_read(size_of(input, "documents") / 1e6)


@one_line_errors
def processes_on_node():
    """The number of processes per node that train one model. A profile can set it."""
    train = used_rule("train")
    if not train:
        return 1
    resources = train.resources
    missing = [n for n in ("processes", "launcher", "sharded") if n not in resources]
    if missing:
        raise UserError(
            f"`train` has no resource `{missing[0]}`; set resources in your profile, because those "
            "in a `use rule` replace all of a rule's"
        )
    read_sharded(resources["sharded"].raw)
    names = {"processes", "nodes", "tasks", "tasks_per_node"} & resources.keys()
    given = {name: read_processes(resources[name].raw, name) for name in names}
    return max(given["processes"], tasks_on_node(given))


@cache
def known_processes():
    """The same for a job. All rules are parsed by then, so it doesn't change."""
    return processes_on_node()


def tasks_on_node(resources):
    """The number of Slurm tasks that a job has on each node."""
    tasks = (resources.get("tasks") or 1) / (resources.get("nodes") or 1)
    return resources.get("tasks_per_node") or math.ceil(tasks)


def check_partitions():
    """With Slurm, check that its partitions can satisfy the jobs' requests."""
    if workflow.executor_plugin is None or workflow.executor_plugin.name != "slurm":
        return
    retries = workflow.execution_settings.retries
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    first_of = {job.rule.name: job for job in reversed(jobs)}
    for rule, job in first_of.items():
        asked = job.resources
        last = job.rule.expand_resources(job.wildcards_dict, job.input, retries + 1)
        partitions.check(
            partitions.Request(
                name=rule,
                partition=str(asked.get("slurm_partition") or ""),
                minutes=known_number(asked.get("runtime")),
                longest=known_number(last.get("runtime")),
                attempts=retries + 1,
                nodes=known_number(asked.get("nodes")) or 1,
                cpus=tasks_on_node(asked)
                * (known_number(asked.get("cpus_per_task")) or job.threads),
                memory=known_number(asked.get("mem_mb")),
            )
        )


def check_dates():
    """Check that no input is dated later than its job's outputs would be, before they're removed."""
    jobs = list(workflow.dag.needrun_jobs())
    inputs = {path for job in jobs for path in job.input}
    inputs -= {path for job in jobs for path in job.output}  # which get a new date
    clocks.wait_until_past(map(Path, sorted(inputs)), HERE.invocations)


def known_number(resource):
    """A resource as a number; None if it isn't set, or isn't known until other jobs have run."""
    return resource if isinstance(resource, int) else None


def trains(rule):
    """Whether a rule is `train` or a variant of it, which may have another name."""
    return "$NANOGPT_TRAIN" in (rule.shellcmd or "")


@one_line_errors
def train_threads(wildcards):
    """The number of threads for training. A profile can set it."""
    # A `use rule bench` with changes reads all rules again, and defines only this one.
    train = used_rule("train") or next(filter(trains, workflow.rules), None)
    if not train:
        raise UserError(
            "`bench` needs the threads of rule `train`; add `train` to your `use rule`"
        )
    return train.resources["_cores"].value


def shown(path, caption, what, of):
    """An output that `snakemake --report` shows, in its caption's category."""
    return report(
        path,
        caption=f"../report/{caption}.rst",
        category=CATEGORIES[caption],
        labels={"what": what, "of": of},
    )


# Categories in `snakemake --report`, by caption.
CATEGORIES = {
    "page": "Report",
    "runs": "Report",
    "columns": "Report",
    "loss": "Charts",
    "scaling": "Charts",
    "speed": "Charts",
    "position": "Charts",
    "calibration": "Charts",
    "metrics": "Runs",
    "eval": "Runs",
    "samples": "Runs",
    "bench": "Runs",
    "dataset": "Datasets",
    "ngram": "Datasets",
}
