# Storage: how the workflow differs if its files are in a storage such as S3 (docs/STORAGE.md).
# There are no rules here.
#
# Snakemake then copies the files that a job reads or writes to a local directory. The user's own
# files, such as texts, stay where they are.
import hashlib

from nanogpt.files.buckets import check_bucket
from nanogpt.project import POD_DIRECTORY

# The directory of these copies, in which paths are those of the project; empty without a storage.
COPIES = os.path.dirname(workflow.inputfile("results"))
os.environ.update(NANOGPT_COPIES=COPIES)

# Datasets whose token files are shards. Those aren't inputs of trainings, so a storage wouldn't
# deliver them.
SHARDED = frozenset() if COPIES else stages.ShardedDatasets(CONFIG)

# Where rules write.
MADE = (
    "results/",
    "resources/corpora/",
    "resources/imported/",
    "resources/tokenizers/",
)


def own_files(paths):
    """These paths, with the user's own files marked so that they aren't looked for in a storage."""
    if not COPIES:
        return list(paths)
    return [path if path.startswith(MADE) else local(path) for path in paths]


def has_variant(name, variant):
    """Whether a variant of a rule exists.

    It doesn't if the caller leaves out either rule, unless an earlier `use rule` has added it.
    """
    uses_both = all(map(CALLER.avail_rulename, (name, variant)))
    return bool(COPIES) and (uses_both or rules.has(variant))


def name_with_milestones(steps):
    """The name of the rule that trains runs with these milestones."""
    listed = "_".join(map(str, steps))
    if len(listed) > 60:
        listed = hashlib.sha256(listed.encode()).hexdigest()[:12]
    return f"train_with_milestones_{listed}"


def stored_milestones():
    """The runs whose milestones are stored, by steps. Warns about the others."""
    stored = {}
    for steps, runs in (stages.milestones(CONFIG) if COPIES else {}).items():
        variant = name_with_milestones(steps)
        if has_variant("train", variant):
            stored[steps] = runs
        elif workflow.is_main_process and CALLER.avail_rulename("train"):
            more = f" and {plural(len(runs) - 1, 'more run')}" if len(runs) > 1 else ""
            print(
                f"warning: milestones of `{runs[0]}`{more} aren't uploaded; add `{variant}` to "
                "your `use rule`",
                file=sys.stderr,
            )
    return stored


# Runs with files that other runs don't have: by the steps of their milestones, and those with a
# meta.pkl.
MILESTONES = stored_milestones()
WITH_VOCABULARY = (
    stages.runs_with_characters(CONFIG)
    if has_variant("export_nanogpt", "export_nanogpt_with_vocabulary")
    else []
)


def add_variant(name, variant, runs, more):
    """Add a rule with more outputs than another one, for some runs.

    It's what `use rule` with changes does, but that needs a variant that's written out.
    """
    original = used_rule(name)
    if not original or not CALLER.avail_rulename(variant):
        return
    outputs = dict(original.ruleinfo.output.kwpaths)
    manifest = outputs.pop("manifest")  # it's the last one
    changes = workflow.run(None)
    workflow.output(**outputs, more=more, manifest=manifest)(changes)
    workflow.register_wildcard_constraints(run=any_of(runs))(changes)
    workflow.userule(rules=[name], name_modifier=variant)(changes)
    used_rule(variant).resources = original.resources  # with those of a profile


def milestone_files(steps):
    """The files of a run's milestones."""
    return expand(
        "results/{{run}}/milestones/{step}/{name}",
        step=steps,
        name=stages.MODEL_FILES,
    )


@one_line_errors
def check_storage():
    """Check that a bucket can be read, before Snakemake looks for each file in it."""
    provider = workflow.storage_registry.default_storage_provider
    if workflow.is_main_process and hasattr(provider, "s3c"):
        prefix = workflow.storage_settings.default_storage_prefix
        check_bucket(provider.s3c.meta.client, prefix)


if COPIES:
    check_storage()


def warn_about_retries():
    """Say that a retried training starts over, if nothing keeps the states that it saves."""
    if "input-output" in map(str, workflow.storage_settings.shared_fs_usage):
        return
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    if not any(trains(job.rule) for job in jobs):
        return
    volumes = getattr(workflow.executor_settings, "persistent_volumes", None)
    kept = POD_DIRECTORY / HERE.states
    if any(kept.is_relative_to(volume.path) for volume in volumes or []):
        return
    to_continue = (
        "share `.nanogpt` among the machines of the jobs"
        if volumes is None
        else f"mount a volume at {POD_DIRECTORY}/.nanogpt"
    )
    print(
        "warning: jobs have no persistent disk, so a retried training starts over; to continue "
        f"it, {to_continue}",
        file=sys.stderr,
    )
