# From a text to a trained GPT, its evaluation, its samples and a report.
#
#   snakemake --cores all                                       the report, with `report.runs`
#   snakemake --cores 1 results/shakespeare_char/samples.txt    one run
#
# Settings are in config.yaml, and the code that the rules run is in nanogpt/.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


# The first rule is the default target, unless a workflow that uses this one defines its own.
rule all:
    """Make the report, and all runs in it."""
    input:
        "results/report/index.html",


include: "workflow/rules/common.smk"
include: "workflow/rules/storage.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/run.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"
