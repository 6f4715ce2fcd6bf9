# Exports: models for other programs (docs/INTERCHANGE.md). They run only on request.
#
# reads   results/<run>/model/; for a model card, also the run's evaluation and manifests
# writes  results/<run>/export/{huggingface,gguf,nanogpt}/


rule export_huggingface:
    """Write a model as a directory for transformers, with a model card."""
    input:
        weights=exported_file("model/model.safetensors", "huggingface"),
        config=exported_file("model/config.json", "huggingface"),
        tokenizer=exported_file("model/tokenizer.json", "huggingface"),
        eval=exported_file("eval.json", "huggingface"),
        evaluated=exported_file("eval.manifest.json", "huggingface"),
        trained=exported_file("train.manifest.json", "huggingface"),
    output:
        weights="results/{run}/export/huggingface/model.safetensors",
        config="results/{run}/export/huggingface/config.json",
        generation="results/{run}/export/huggingface/generation_config.json",
        tokenizer="results/{run}/export/huggingface/tokenizer.json",
        tokenizer_config="results/{run}/export/huggingface/tokenizer_config.json",
        card="results/{run}/export/huggingface/README.md",
        mark="results/{run}/export/huggingface/export.json",
        manifest="results/{run}/export_huggingface.manifest.json",
    log:
        "results/{run}/export_huggingface.log",
    benchmark:
        "results/{run}/export_huggingface.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("export_huggingface"),
    params:
        settings=run_settings("name"),
        code=stage_code("export_huggingface"),
    script:
        "../scripts/export_huggingface.py"


rule export_gguf:
    """Write a GPT-2 model as a file for llama.cpp, Ollama and LM Studio."""
    input:
        weights=exported_file("model/model.safetensors", "gguf"),
        config=exported_file("model/config.json", "gguf"),
        tokenizer=exported_file("model/tokenizer.json", "gguf"),
    output:
        gguf="results/{run}/export/gguf/{run}.gguf",
        mark="results/{run}/export/gguf/export.json",
        manifest="results/{run}/export_gguf.manifest.json",
    log:
        "results/{run}/export_gguf.log",
    benchmark:
        "results/{run}/export_gguf.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("export_gguf"),
    params:
        settings=run_settings("name"),
        code=stage_code("export_gguf"),
    script:
        "../scripts/export_gguf.py"


rule export_nanogpt:
    """Write a GPT-2 model as a checkpoint for nanoGPT, with meta.pkl for character tokens."""
    input:
        weights=exported_file("model/model.safetensors", "nanogpt"),
        config=exported_file("model/config.json", "nanogpt"),
        tokenizer=exported_file("model/tokenizer.json", "nanogpt"),
    output:
        checkpoint="results/{run}/export/nanogpt/ckpt.pt",
        mark="results/{run}/export/nanogpt/export.json",
        manifest="results/{run}/export_nanogpt.manifest.json",
    log:
        "results/{run}/export_nanogpt.log",
    benchmark:
        "results/{run}/export_nanogpt.benchmark.tsv"
    wildcard_constraints:
        run=not_one_of(WITH_VOCABULARY),
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("export_nanogpt"),
    params:
        settings=run_settings("name"),
        code=stage_code("export_nanogpt"),
    script:
        "../scripts/export_nanogpt.py"


if WITH_VOCABULARY:
    add_variant(
        "export_nanogpt",
        "export_nanogpt_with_vocabulary",
        WITH_VOCABULARY,
        ["results/{run}/export/nanogpt/data/{run}/meta.pkl"],
    )
