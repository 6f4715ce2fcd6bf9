"""A server that imports Snakemake once and forks for each call.

Imports take most of a dry run's time. A request is a line of JSON on standard input: a directory,
arguments, environment variables, and files for the call's output. The answer is a line with the
exit code. Each call is a separate process that does the same as `python -m snakemake`.
"""

import json
import os
import sys

# Modules that Snakemake and the workflow import late, in each call.
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
# The values that Python and `-m` would set.
sys.path[:0] = [directory, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
sys.argv = [f"{snakemake.__path__[0]}/__main__.py", *arguments]
snakemake.cli.main()
