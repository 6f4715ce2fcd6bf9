# Storage: how the workflow differs if its files are in a storage such as S3 (docs/STORAGE.md).
# There are no rules here.
#
# Snakemake then copies the files that a job reads or writes to a local directory. The user's own
# files, such as texts, stay where they are.
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


def warn_about_retries():
    """Say that a retried training starts over, if nothing keeps the states that it saves."""
    if "input-output" in map(str, workflow.storage_settings.shared_fs_usage):
        return
    volumes = getattr(workflow.executor_settings, "persistent_volumes", [])
    kept = POD_DIRECTORY / HERE.states
    if not any(kept.is_relative_to(volume.path) for volume in volumes):
        print(
            "warning: jobs keep no files, so a training that's tried again starts from the "
            f"beginning; mount a volume at {POD_DIRECTORY}/.nanogpt to continue instead",
            file=sys.stderr,
        )
