"""Rule generate: a length and a seed in, a play out."""

from nanogpt.artifacts.stages import Job, stage
from nanogpt.data import play as playwright
from nanogpt.files.atomic import write_text


def make(job: Job) -> dict[str, str]:
    asked = job.settings["corpus"]
    write_text(snakemake.output.text, playwright.write(**asked))
    return {"summary": f"{asked['n_characters']:,} characters, seed {asked['seed']}"}


stage(snakemake, make)
