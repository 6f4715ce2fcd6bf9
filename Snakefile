# From a text to a trained GPT, its evaluation, its samples and a report.
#
#   snakemake --cores all                                       the report over `report.runs`
#   snakemake --cores 1 results/shakespeare_char/samples.txt    one run
#
# What there is to run, and how, stands in config.yaml; what the rules compute, in nanogpt/.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


# First, so that it's the default target, unless a workflow that uses this one has another.
rule all:
    """Make the report, and with it all runs that it compares."""
    input:
        "results/report/index.html",


include: "workflow/rules/common.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/run.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"
