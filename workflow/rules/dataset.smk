# Datasets: text to token files.
#
# reads   a corpus file: resources/corpora/..., resources/texts/<name>.txt or a path of config.yaml
# writes  results/datasets/<dataset>/{train.bin,val.bin,tokenizer.json,meta.json}


rule prepare:
    """Decode a corpus, build its tokenizer, and write the tokens of both splits."""
    input:
        corpus=corpus_file,
    output:
        train="results/datasets/{dataset}/train.bin",
        val="results/datasets/{dataset}/val.bin",
        tokenizer="results/datasets/{dataset}/tokenizer.json",
        meta="results/datasets/{dataset}/meta.json",
        manifest="results/datasets/{dataset}/prepare.manifest.json",
    log:
        "results/datasets/{dataset}/prepare.log",
    benchmark:
        "results/datasets/{dataset}/prepare.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    params:
        settings=dataset_settings,
        code=lambda wildcards: stage_code("prepare"),
        corpus_file_state=corpus_file_state,
    script:
        "../scripts/prepare.py"
