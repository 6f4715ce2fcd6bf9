"""Rule export_gguf: a model in, a file for llama.cpp out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.interchange.gguf_files import export_gguf


def make(_: Job) -> Made:
    model = Path(snakemake.input.weights).parent
    return Made(export_gguf(model, Path(snakemake.output.gguf).parent))


run_stage(snakemake, "export_gguf", make)
