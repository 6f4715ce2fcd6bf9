"""Rule export_nanogpt: a model in, a checkpoint and vocabulary for nanoGPT out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.interchange.nanogpt_checkpoints import export_nanogpt, meta_files

directory = Path(snakemake.output.checkpoint).parent


def make(_: Job) -> Made:
    return Made(export_nanogpt(Path(snakemake.input.weights).parent, directory))


names = meta_files(snakemake.wildcards.run, load_tokenizer(snakemake.input.tokenizer))
metas = [str(directory / name) for name in names]
run_stage(snakemake, "export_nanogpt", make, more_outputs=metas, more_directory=directory / "data")
