"""All paths of a project and all environment variables, in one place.

Paths start at an explicit root, so that a server or a notebook can use a project that isn't the
working directory. The default root is the working directory. Its paths are relative, as in
Snakemake, manifests and messages.
"""

import getpass
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nanogpt.errors import UserError

# How often a waiting thread checks for work before it sleeps; libgomp's default is 300,000.
SPIN_COUNT = "10000"
SPIN_COUNT_BESIDE_OTHERS = "1000"  # if they use a quarter of the processors or more
SPIN_COUNT_IN_A_CROWD = "0"  # if there are as many of them as processors
LOAD = Path("/proc/loadavg")  # only on Linux
LOOKS = 8
RANK_TIMEOUT, LONGEST_RANK_TIMEOUT = 600.0, 86_400.0  # seconds
BETWEEN_LOOKS = 0.05  # seconds

# The Snakefile that snakedeploy writes, relative to config/.
DEPLOYED = Path("../workflow/Snakefile")

# The working directory of a job on Kubernetes, chosen by Snakemake's plugin.
POD_DIRECTORY = Path("/workdir")

# The n-grams of a run, in its model directory.
NGRAMS_FILE = "ngrams.safetensors"


# The name of a shard.
SHARD = re.compile(r"(train|val)\.\d{3,}\.bin")


def group_name(number: int) -> str:
    """The number of a group of a corpus's files in paths; also that of its shard."""
    return f"{number:03d}"


def token_file(split: str, shard: int | None = None) -> str:
    """The name of the token file of a split, or of one of its shards."""
    return f"{split}.bin" if shard is None else f"{split}.{group_name(shard)}.bin"


@dataclass(frozen=True)
class Project:
    """A directory with a config.yaml, corpora, results and unfinished trainings."""

    root: Path = Path()

    @classmethod
    def of(cls, config_file: Path) -> "Project":
        """Return the project that a config file belongs to."""
        directory = config_file.parent
        is_deployed = directory.name == "config" and (directory / DEPLOYED).is_file()
        return cls(directory.parent if is_deployed else directory)

    @property
    def config_file(self) -> Path:
        """config.yaml, or config/config.yaml in a project made by snakedeploy."""
        own, deployed = self.root / "config.yaml", self.root / "config/config.yaml"
        is_deployed = not own.exists() and (deployed.parent / DEPLOYED).is_file()
        return deployed if is_deployed else own

    @property
    def profile(self) -> Path:
        """Snakemake's options for this project."""
        return self.root / "profiles/default/config.yaml"

    @property
    def resources(self) -> Path:
        """Texts and other inputs of runs: downloaded, built in, or the user's own."""
        return self.root / "resources"

    @property
    def texts(self) -> Path:
        """The user's texts. Each is a dataset and a run without any config."""
        return self.root / "resources/texts"

    @property
    def fragments(self) -> Path:
        """YAML files that commands write, with entries in addition to config.yaml's."""
        return self.root / "resources/config"

    @property
    def fragments_lock(self) -> Path:
        """The lock of a command that writes such a file."""
        return self.root / ".nanogpt/config"

    @property
    def corpora(self) -> Path:
        """Downloads and built-in corpora, one directory each."""
        return self.root / "resources/corpora"

    @property
    def imported_models(self) -> Path:
        """Other programs' models in our format, used as initial weights, one directory each."""
        return self.root / "resources/imported"

    @property
    def downloaded_models(self) -> Path:
        """Downloaded models such as GPT-2, one directory each."""
        return self.root / "resources/models"

    @property
    def gpt2_merges(self) -> Path:
        """The merges of GPT-2's tokenizer."""
        return self.root / "resources/tokenizers/gpt2/vocab.bpe"

    @property
    def results(self) -> Path:
        """One directory for each run, `datasets` and `report`."""
        return self.root / "results"

    @property
    def datasets(self) -> Path:
        """One directory for each dataset."""
        return self.results / "datasets"

    @property
    def states(self) -> Path:
        """The states of unfinished trainings, one directory for each version."""
        return self.root / ".nanogpt/state"

    @property
    def claims(self) -> Path:
        """One file for each run that is being trained, with the version of the training."""
        return self.root / ".nanogpt/runs"

    @property
    def jobs(self) -> Path:
        """The locks of stages other than training."""
        return self.root / ".nanogpt/jobs"

    @property
    def served(self) -> Path:
        """Trainings that were started from the page: a record and a log for each run."""
        return self.root / ".nanogpt/serve"

    @property
    def invocations(self) -> Path:
        """The locks of the running Snakemake processes, one directory each."""
        return self.root / ".nanogpt/invocations"

    @property
    def snakemake_locks(self) -> Path:
        """Snakemake's own locks, which list the files that it reads and writes."""
        return self.root / ".snakemake/locks"

    @property
    def code(self) -> Path:
        """The digests of all functions in each version of the code that made a result."""
        return self.root / ".nanogpt/code"

    @property
    def rule_records(self) -> Path:
        """Snakemake's metadata of each file that a rule made."""
        return self.root / ".snakemake/metadata"

    @property
    def unfinished_records(self) -> Path:
        """Snakemake's markers of unfinished files."""
        return self.root / ".snakemake/incomplete"

    @property
    def workflow(self) -> Path:
        """The workflow's rules and scripts, in a checkout."""
        return self.root / "workflow"

    @property
    def run_index(self) -> Path:
        """What `nanogpt serve` has read about runs; it can be removed at any time."""
        return self.root / ".nanogpt/index.sqlite"

    @property
    def verified(self) -> Path:
        """What `nanogpt verify` has read; it can be removed at any time."""
        return self.root / ".nanogpt/verified.json"

    @property
    def cache(self) -> Path | None:
        """Finished artifacts by version: NANOGPT_CACHE if set; None if it's `off`."""
        path = os.environ.get("NANOGPT_CACHE") or ".nanogpt/cache"
        return None if path == "off" else self.root / path


# The working directory. Paths of the workflow and of messages are relative to it.
HERE = Project()


def mirror() -> str | None:
    """NANOGPT_MIRROR: a directory or URL prefix to try before every download."""
    return os.environ.get("NANOGPT_MIRROR") or None


def copies_of_stored() -> str:
    """NANOGPT_COPIES: where Snakemake copies files of a storage to; "" without a storage.

    The workflow sets it for its jobs. The paths below it are those of a project.
    """
    return os.environ.get("NANOGPT_COPIES", "")


def save_interval() -> float | None:
    """NANOGPT_SAVE_INTERVAL: seconds between saved states of a training, if set.

    Errors: UserError if it isn't a number of seconds.
    """
    return _seconds("NANOGPT_SAVE_INTERVAL")


def _seconds(name: str) -> float | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UserError(f"{name}: should be a number of seconds, such as 60 (found `{text}`)")
    return seconds


def rank_timeout() -> float:
    """NANOGPT_RANK_TIMEOUT: seconds that the ranks of a training wait for each other.

    Errors: UserError if it isn't a number of seconds, or is 0 or more than a day.
    """
    seconds = _seconds("NANOGPT_RANK_TIMEOUT")
    if seconds is None:
        return RANK_TIMEOUT
    if not 0 < seconds <= LONGEST_RANK_TIMEOUT:
        raise UserError(
            "NANOGPT_RANK_TIMEOUT: should be more than 0 and up to "
            f"{LONGEST_RANK_TIMEOUT:.0f} seconds (found `{seconds:g}`)"
        )
    return seconds


def matmul_override() -> str | None:
    """NANOGPT_MATMUL: the library for float32 products on a CPU, if set: torch or onednn."""
    return os.environ.get("NANOGPT_MATMUL") or None


@dataclass(frozen=True)
class Start:
    """How torchrun or srun started this process, as one of the n ranks of a training.

    local_rank: its number on its node. n_here: how many ranks share this job's threads; 1 under
    srun, which gives each rank its own. meeting_place: host and port; None under srun, where we
    choose them.
    """

    rank: int
    n: int
    local_rank: int
    n_here: int
    meeting_place: tuple[str, int] | None
    slurm_job: int = 0
    slurm_step: int = 0
    slurm_nodes: str = ""


def start_of_rank() -> Start | None:
    """Read how torchrun or srun started this process; None if it's the only rank.

    Errors: UserError for values that neither would set.
    """
    environ = os.environ
    if "TORCHELASTIC_RUN_ID" in environ:
        start = Start(
            rank=_whole_number("RANK"),
            n=_whole_number("WORLD_SIZE"),
            local_rank=_whole_number("LOCAL_RANK"),
            n_here=_whole_number("LOCAL_WORLD_SIZE"),
            meeting_place=(environ.get("MASTER_ADDR", ""), _whole_number("MASTER_PORT")),
        )
    elif "SLURM_STEP_NUM_TASKS" in environ:  # not set in a batch script, which isn't a step's task
        start = Start(
            rank=_whole_number("SLURM_PROCID"),
            n=_whole_number("SLURM_STEP_NUM_TASKS"),
            local_rank=_whole_number("SLURM_LOCALID"),
            n_here=1,
            meeting_place=None,
            slurm_job=_whole_number("SLURM_JOB_ID"),
            slurm_step=_whole_number("SLURM_STEP_ID"),
            slurm_nodes=environ.get("SLURM_STEP_NODELIST", ""),
        )
    else:
        return None
    return start if start.n > 1 else None


def _whole_number(name: str) -> int:
    """Read a variable that torchrun or srun sets."""
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise UserError(
            f"{name}: should be a whole number, set by torchrun or srun (found `{text}`)"
        )
    return int(text)


def set_meeting_place(start: Start, host: str, port: int) -> None:
    """Set the address where the ranks of a training meet, as torchrun does."""
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = host, str(port)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(start.rank), str(start.n)


def set_threads_of_ranks(threads: int) -> None:
    """Set the number of OpenMP threads of processes started from here."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def cxx_compiler() -> str:
    """CXX: the C++ compiler that torch.compile calls on a CPU."""
    return os.environ.get("CXX", "g++")


def set_tokenizer_threads(threads: int) -> None:
    """Set the threads of the `tokenizers` library, which reads the number once, at its start."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"


def let_threads_sleep() -> None:
    """Make torch's waiting threads sleep sooner, unless the user set how they wait.

    By default, they wait in a long loop, which slows a training down further if other processes
    are busy. A shorter loop helps then, but costs time on an idle machine: without a loop, each of
    many short waits costs a wake-up (docs/BENCHMARKS.md). This only works before torch is imported,
    here and in child processes, and with GNU's OpenMP, which torch uses on Linux.
    """
    # The parent process may have set it already.
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        others = _n_other_running()
        processors = os.cpu_count() or 1
        count = SPIN_COUNT
        if others >= processors:
            count = SPIN_COUNT_IN_A_CROWD
        elif 4 * others >= processors:
            count = SPIN_COUNT_BESIDE_OTHERS
        os.environ["GOMP_SPINCOUNT"] = count


def keep_torch_quiet() -> None:
    """Keep torch from printing C++ stacks when a rank is lost, unless the user wants them.

    We report the loss in one line. This works only before torch is imported, here and in child
    processes.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


def _n_other_running() -> int:
    """Count the threads of other processes that run or wait for a processor.

    It's the minimum of several looks, so that short-lived ones such as our parent don't count.
    """
    least = sys.maxsize
    for look in range(LOOKS):
        if look:
            time.sleep(BETWEEN_LOOKS)
        try:
            running, _ = LOAD.read_text().split()[3].split("/")
        except (OSError, ValueError, IndexError):
            return 0
        least = min(least, int(running) - 1)
        if least == 0:
            break
    return least


def name_user() -> None:
    """Give the user a name if the system has none, for this process and its children.

    Containers often run as a user id without a name. Snakemake and torch's compiler need one.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def set_cpu_capability(capability: str) -> None:
    """Limit torch's own kernels to a CPU capability, such as avx2.

    torch reads it once, at its first computation.
    """
    os.environ["ATEN_CPU_CAPABILITY"] = capability


def set_cublas_workspace(workspace: str) -> None:
    """Set the workspace of cuBLAS, unless the user already did."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", workspace)
