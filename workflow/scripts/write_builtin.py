"""Rule write_builtin: a length and a seed in, a play out."""

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.config.corpora import Corpus
from nanogpt.data import play
from nanogpt.files.atomic import write_text


def make(job: Job) -> Made:
    corpus = job.settings("corpus", Corpus, partial=True)
    write_text(snakemake.output.text, play.write(corpus.n_characters, corpus.seed))
    return Made(f"{corpus.n_characters:,} characters, seed {corpus.seed}")


run_stage(snakemake, "write_builtin", make)
