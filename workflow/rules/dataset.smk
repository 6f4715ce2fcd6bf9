# Datasets: from text to token files.
#
# reads   corpus files: resources/corpora/..., resources/texts/<name>.txt or paths of config.yaml
# writes  results/datasets/<dataset>/{train.bin,val.bin,tokenizer.json,meta.json}, and instead of
#         the token files train.000.bin, train.001.bin, ..., val.000.bin, ... for a sharded dataset
#
# One job prepares a corpus of one file. A corpus of many files is split into groups: `count` and
# `encode` run once per group, in results/datasets/<dataset>/groups/, and `prepare` joins them.
# In a sharded dataset, each group's token files are shards, and `prepare_shards` only lists them.
# The other files of groups are temporary. The params of `prepare` decide if a dataset is out of
# date. Those of the other rules decide if files of an interrupted run can still be used.


rule count:
    """Read a group of files for the first time: encodings, lengths, characters and quality."""
    input:
        corpus=group_inputs,
    output:
        counts=temp("results/datasets/{dataset}/groups/{group}/counts.json"),
        documents=temp("results/datasets/{dataset}/groups/{group}/documents.bin"),
    log:
        "results/datasets/{dataset}/groups/{group}/count.log",
    benchmark:
        "results/datasets/{dataset}/groups/{group}/count.benchmark.tsv"
    wildcard_constraints:
        group=GROUP,
    conda:
        "../../envs/nanogpt.yaml"
    threads: 2
    resources:
        mem_mb=memory_of("count", "dataset"),
        runtime=minutes_to_read,
    params:
        settings=dataset_settings,
        code=dataset_code,
        corpus_state=corpus_state,
        files=group_files,
    script:
        "../scripts/count.py"


rule plan:
    """Choose the documents that stay and the split, and build the tokenizer."""
    input:
        counts=of_groups("counts.json"),
        documents=of_groups("documents.bin"),
        corpus=dataset_corpus,
        tokenizer=given_tokenizer,
    output:
        plan=temp("results/datasets/{dataset}/groups/plan.json"),
        kept=temp("results/datasets/{dataset}/groups/kept.npy"),
        tokenizer=temp("results/datasets/{dataset}/groups/tokenizer.json"),
    log:
        "results/datasets/{dataset}/groups/plan.log",
    benchmark:
        "results/datasets/{dataset}/groups/plan.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("plan", "dataset"),
        runtime=minutes_to_plan,
    params:
        settings=dataset_settings,
        code=dataset_code,
        corpus_state=corpus_state,
    script:
        "../scripts/plan.py"


rule encode:
    """Read a group of files for the second time, and write its tokens."""
    input:
        corpus=group_inputs,
        counts="results/datasets/{dataset}/groups/{group}/counts.json",
        plan="results/datasets/{dataset}/groups/plan.json",
        kept="results/datasets/{dataset}/groups/kept.npy",
        tokenizer="results/datasets/{dataset}/groups/tokenizer.json",
    output:
        train=temp("results/datasets/{dataset}/groups/{group}/train.bin"),
        val=temp("results/datasets/{dataset}/groups/{group}/val.bin"),
        totals=temp("results/datasets/{dataset}/groups/{group}/totals.json"),
    log:
        "results/datasets/{dataset}/groups/{group}/encode.log",
    benchmark:
        "results/datasets/{dataset}/groups/{group}/encode.benchmark.tsv"
    wildcard_constraints:
        group=GROUP,
    conda:
        "../../envs/nanogpt.yaml"
    threads: 2
    resources:
        mem_mb=memory_of("encode", "dataset"),
        runtime=minutes_to_read,
    params:
        settings=dataset_settings,
        code=dataset_code,
        corpus_state=corpus_state,
    script:
        "../scripts/encode.py"


use rule encode as encode_shard with:
    output:
        train="results/datasets/{dataset}/train.{group}.bin",
        val="results/datasets/{dataset}/val.{group}.bin",
        totals=temp("results/datasets/{dataset}/groups/{group}/totals.json"),


rule prepare:
    """Write a dataset, from one file or by joining the groups of many files."""
    input:
        corpus=dataset_corpus,
        tokenizer=given_tokenizer,
        planned=planned_groups,
        counts=of_groups("counts.json"),
        totals=of_groups("totals.json"),
        train=token_parts("train"),
        val=token_parts("val"),
    output:
        train="results/datasets/{dataset}/train.bin",
        val="results/datasets/{dataset}/val.bin",
        tokenizer="results/datasets/{dataset}/tokenizer.json",
        meta=shown(
            "results/datasets/{dataset}/meta.json", "dataset", "counts", "{dataset}"
        ),
        manifest="results/datasets/{dataset}/prepare.manifest.json",
    log:
        "results/datasets/{dataset}/prepare.log",
    benchmark:
        "results/datasets/{dataset}/prepare.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("prepare", "dataset"),
        runtime=minutes_to_read,
    params:
        settings=dataset_settings,
        code=dataset_code,
        corpus_state=corpus_state,
    script:
        "../scripts/prepare.py"


use rule prepare as prepare_shards with:
    output:
        tokenizer="results/datasets/{dataset}/tokenizer.json",
        meta=shown(
            "results/datasets/{dataset}/meta.json", "dataset", "counts", "{dataset}"
        ),
        manifest="results/datasets/{dataset}/prepare.manifest.json",
    resources:
        mem_mb=memory_of("prepare", "dataset"),


only_for(lambda dataset: dataset not in SHARDED, "encode", "prepare")
only_for(lambda dataset: dataset in SHARDED, "encode_shard", "prepare_shards")


rule ngram:
    """Count n-grams and evaluate them on the validation split, as a baseline for GPTs."""
    input:
        train=dataset_tokens("train"),
        val=dataset_tokens("val"),
        tokenizer="results/datasets/{dataset}/tokenizer.json",
        meta="results/datasets/{dataset}/meta.json",
    output:
        ngram=shown(
            "results/datasets/{dataset}/ngram.json", "ngram", "n-grams", "{dataset}"
        ),
        manifest="results/datasets/{dataset}/ngram.manifest.json",
    log:
        "results/datasets/{dataset}/ngram.log",
    benchmark:
        "results/datasets/{dataset}/ngram.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("ngram", "dataset"),
    params:
        settings=lambda wildcards: {"name": wildcards.dataset},
        code=stage_code("ngram"),
    script:
        "../scripts/ngram.py"
