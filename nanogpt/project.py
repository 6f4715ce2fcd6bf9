"""Where things are: every path of a project and every environment variable, in one place.

Paths start at an explicit root, so that a server or a notebook can work on a project that isn't its
working directory. The default root is the working directory, and paths below it stay relative:
Snakemake, manifests and messages name files that way.
"""

import getpass
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nanogpt.errors import UserError

# Looks at whether to go on, before a thread sleeps: libgomp's own number is 300,000.
SPIN_COUNT = "10000"
SPIN_COUNT_BESIDE_OTHERS = "1000"  # on a quarter of the processors or more
SPIN_COUNT_IN_A_CROWD = "0"  # where others are as many as processors
LOAD = Path("/proc/loadavg")  # Linux alone has it
LOOKS = 8
RANK_TIMEOUT, LONGEST_RANK_TIMEOUT = 600.0, 86_400.0  # seconds
BETWEEN_LOOKS = 0.05  # seconds

# Seen from a config file, the Snakefile that snakedeploy writes.
DEPLOYED = Path("../workflow/Snakefile")

# The n-grams that a run mixes with its GPT, in its model's directory.
NGRAMS_FILE = "ngrams.safetensors"


@dataclass(frozen=True)
class Project:
    """A directory with a config.yaml, its corpora, its results and its unfinished work."""

    root: Path = Path()

    @classmethod
    def of(cls, config_file: Path) -> "Project":
        """The project that a config file has the settings of."""
        directory = config_file.parent
        is_deployed = directory.name == "config" and (directory / DEPLOYED).is_file()
        return cls(directory.parent if is_deployed else directory)

    @property
    def config_file(self) -> Path:
        """All settings: config.yaml, or config/config.yaml where snakedeploy wrote a workflow."""
        own, deployed = self.root / "config.yaml", self.root / "config/config.yaml"
        is_deployed = not own.exists() and (deployed.parent / DEPLOYED).is_file()
        return deployed if is_deployed else own

    @property
    def texts(self) -> Path:
        """The user's own texts; each is a dataset and a run without any config."""
        return self.root / "resources/texts"

    @property
    def fragments(self) -> Path:
        """Entries that commands add to those of config.yaml, in a YAML file for each name."""
        return self.root / "resources/config"

    @property
    def fragments_lock(self) -> Path:
        """The lock of a command that adds such entries."""
        return self.root / ".nanogpt/config"

    @property
    def corpora(self) -> Path:
        """Downloads and built-in corpora, a directory each."""
        return self.root / "resources/corpora"

    @property
    def imported_models(self) -> Path:
        """Models of others in our form, to begin trainings with, a directory each."""
        return self.root / "resources/imported"

    @property
    def downloaded_models(self) -> Path:
        """Models of others, such as GPT-2, a directory each."""
        return self.root / "resources/models"

    @property
    def gpt2_merges(self) -> Path:
        """The merges of GPT-2's tokenizer."""
        return self.root / "resources/tokenizers/gpt2/vocab.bpe"

    @property
    def results(self) -> Path:
        """A directory for each run, and `datasets` and `report`."""
        return self.root / "results"

    @property
    def datasets(self) -> Path:
        """A directory for each dataset."""
        return self.results / "datasets"

    @property
    def states(self) -> Path:
        """The states of unfinished trainings, a directory for each version."""
        return self.root / ".nanogpt/state"

    @property
    def claims(self) -> Path:
        """A file for each run that is being trained: the version that will be its result."""
        return self.root / ".nanogpt/runs"

    @property
    def jobs(self) -> Path:
        """The locks of stages other than training."""
        return self.root / ".nanogpt/jobs"

    @property
    def invocations(self) -> Path:
        """The locks of the calls of Snakemake that work here, a directory each."""
        return self.root / ".nanogpt/invocations"

    @property
    def snakemake_locks(self) -> Path:
        """Where Snakemake names the files that its calls read and write."""
        return self.root / ".snakemake/locks"

    @property
    def code(self) -> Path:
        """The digests of the functions of each code that made a result."""
        return self.root / ".nanogpt/code"

    @property
    def rule_records(self) -> Path:
        """What Snakemake noted of each file that a rule made."""
        return self.root / ".snakemake/metadata"

    @property
    def unfinished_records(self) -> Path:
        """What Snakemake noted of each file that a rule is making, or that a kill left."""
        return self.root / ".snakemake/incomplete"

    @property
    def workflow(self) -> Path:
        """The workflow's rules and scripts, in a checkout."""
        return self.root / "workflow"

    @property
    def cache(self) -> Path | None:
        """Finished artifacts by version: NANOGPT_CACHE if set; None if that is `off`."""
        path = os.environ.get("NANOGPT_CACHE") or ".nanogpt/cache"
        return None if path == "off" else self.root / path


# The working directory. Paths of the workflow and of messages are relative to it.
HERE = Project()


def mirror() -> str | None:
    """NANOGPT_MIRROR: a directory or URL prefix that is tried before every download."""
    return os.environ.get("NANOGPT_MIRROR") or None


def save_interval() -> float | None:
    """NANOGPT_SAVE_INTERVAL: seconds between two saved states of a training, if set.

    Errors: UserError for what isn't a number of seconds.
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
        raise UserError(f"{name}: `{text}` isn't a number of seconds; use 60, for example")
    return seconds


def rank_timeout() -> float:
    """NANOGPT_RANK_TIMEOUT: seconds that the ranks of a training wait for each other, if set.

    Errors: UserError for what isn't a number of seconds, for 0 and for more than a day.
    """
    seconds = _seconds("NANOGPT_RANK_TIMEOUT")
    if seconds is None:
        return RANK_TIMEOUT
    if not 0 < seconds <= LONGEST_RANK_TIMEOUT:
        raise UserError(
            "NANOGPT_RANK_TIMEOUT: should be more than 0 and at most "
            f"{LONGEST_RANK_TIMEOUT:.0f} seconds (found {seconds:g})"
        )
    return seconds


def matmul_override() -> str | None:
    """NANOGPT_MATMUL: what computes float32 products on a CPU, if set: torch or onednn."""
    return os.environ.get("NANOGPT_MATMUL") or None


@dataclass(frozen=True)
class Start:
    """What started this process as one of the n of a training: torchrun or srun.

    local_rank: its number on its node. n_here: how many share the threads of this job; 1 under
    srun, which gives each its own. meeting_place: host and port; srun leaves them to us.
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
    """What torchrun or srun told this process; None if it's the only one of its training.

    Errors: UserError for variables that neither would set.
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
    elif "SLURM_STEP_NUM_TASKS" in environ:  # not in a batch script, which is no task of a step
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
    """A variable that torchrun or srun sets."""
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise UserError(f"{name}: should be a whole number, as torchrun and srun set it (`{text}`)")
    return int(text)


def set_meeting_place(start: Start, host: str, port: int) -> None:
    """Tell torch, as torchrun does, where the ranks of a training meet."""
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = host, str(port)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(start.rank), str(start.n)


def set_threads_of_ranks(threads: int) -> None:
    """Set OpenMP's threads for each process that is started here."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def cxx_compiler() -> str:
    """CXX: the C++ compiler that torch.compile calls on a CPU."""
    return os.environ.get("CXX", "g++")


def set_tokenizer_threads(threads: int) -> None:
    """Set the threads of the `tokenizers` library, which reads them once, when it starts."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"


def let_threads_sleep() -> None:
    """Let torch's threads sleep soon while they wait for each other, if the user didn't choose.

    By default they wait in a loop for long, which slows a training down further beside a busy
    process; the less they look, the less, and the more it costs where they are alone. Without any
    loop, each of many short waits costs a wake-up (docs/BENCHMARKS.md). It works only before torch
    is imported, here and in child processes, and with GNU's OpenMP, which torch has on Linux.
    """
    # A process that started this one may have looked already.
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
    """Keep torch from printing stacks of its C++ where a rank is lost, unless the user wants them.

    What happened is an error of ours, in a line. It works only before torch is imported, here and
    in child processes.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


def _n_other_running() -> int:
    """How many threads of other processes have a processor or wait for one, at each of some looks.

    What runs for a moment only, such as what started this process, isn't counted.
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
    """Give a user id that has no name one, for this process and those that it starts.

    Containers run as such ids. Snakemake and torch's compiler ask for a name, and fail without.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the second since Python 3.13
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def set_cpu_capability(capability: str) -> None:
    """Hold torch's own kernels to those of a CPU with a capability, such as avx2.

    torch reads it once, when it computes something for the first time.
    """
    os.environ["ATEN_CPU_CAPABILITY"] = capability


def set_cublas_workspace(workspace: str) -> None:
    """Set the workspace of cuBLAS, unless the user did."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", workspace)
