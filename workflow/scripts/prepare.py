"""Rule prepare: a text in, token files out."""

from pathlib import Path

from nanogpt.config import Corpus, Dataset
from nanogpt.dataset import prepare
from nanogpt.stage import stage

with stage(snakemake) as job:
    prepare(
        Path(snakemake.input.corpus),
        Corpus(**job.settings["corpus"]),
        Dataset(**job.settings["dataset"]),
        Path(snakemake.output.meta).parent,
    )
