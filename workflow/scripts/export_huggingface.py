"""Rule export_huggingface: a model in, a directory for transformers out."""

from pathlib import Path

from nanogpt.artifacts.stages import Job, Made, run_stage
from nanogpt.interchange.hugging_face_export import export_hugging_face


def make(_: Job) -> Made:
    model = Path(snakemake.input.weights).parent
    return Made(export_hugging_face(model, Path(snakemake.output.weights).parent))


run_stage(snakemake, "export_huggingface", make)
