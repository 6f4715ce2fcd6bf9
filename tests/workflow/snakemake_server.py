"""Snakemake, imported once and forked for each call, as its imports take most of a dry run's time.

A request is a line of JSON on standard input: a directory, arguments, environment variables, and
files for what the call prints. The answer is a line with its exit code. A call is a process of its
own that runs what `python -m snakemake` runs.
"""

import json
import os
import sys

# What Snakemake and the workflow import late, at each call.
import backports.zstd  # noqa: F401
import charset_normalizer  # noqa: F401
import pulp  # noqa: F401
import pydantic  # noqa: F401
import smart_open  # noqa: F401
import snakemake.cli
import snakemake.profiles
import snakemake.report.html_reporter
import snakemake.storage
import snakemake_executor_plugin_slurm  # noqa: F401
import yaml  # noqa: F401

while request := sys.stdin.readline():
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

directory, arguments, environment, output, errors = json.loads(request)
os.chdir(directory)
os.environ.clear()
os.environ.update(environment)
for descriptor, path, mode in (
    (0, os.devnull, os.O_RDONLY),
    (1, output, os.O_WRONLY),
    (2, errors, os.O_WRONLY),
):
    os.dup2(os.open(path, mode), descriptor)
# As Python and `-m` set them.
sys.path[:0] = [directory, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
sys.argv = [f"{snakemake.__path__[0]}/__main__.py", *arguments]
snakemake.cli.main()
