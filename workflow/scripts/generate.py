"""Rule generate: a length and a seed in, a play out."""

from nanogpt import playwright
from nanogpt.config import Corpus
from nanogpt.files import write_text
from nanogpt.stage import stage

with stage(snakemake) as job:
    corpus = Corpus(**job.settings["corpus"])
    write_text(snakemake.output.text, playwright.write(corpus.n_characters, corpus.seed))
