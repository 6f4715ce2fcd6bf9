"""Rule generate: a length and a seed in, a play out."""

from nanogpt import playwright
from nanogpt.files import write_text
from nanogpt.stage import Job, stage


def make(job: Job) -> dict[str, str]:
    asked = job.settings["corpus"]
    write_text(snakemake.output.text, playwright.write(**asked))
    return {"summary": f"{asked['n_characters']:,} characters, seed {asked['seed']}"}


stage(snakemake, make)
