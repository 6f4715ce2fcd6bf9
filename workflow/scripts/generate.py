"""Rule generate: a length and a seed in, a play out."""

from nanogpt import playwright
from nanogpt.files import write_text
from nanogpt.stage import Job, stage


def make(job: Job) -> None:
    write_text(snakemake.output.text, playwright.write(**job.settings["corpus"]))


stage(snakemake, make)
