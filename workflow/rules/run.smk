# Runs: from token files to a model, its evaluation, its samples and its loss curves.
#
# reads   results/datasets/<dataset>/, and the model that a run starts from
# writes  results/<run>/{model/,metrics.jsonl,eval.json,samples.txt,samples.jsonl,bench.json,tensorboard/}
import json
from itertools import chain


rule train:
    """Train a model, and write its best (or last) weights and its metrics."""
    input:
        train=dataset_tokens("train"),
        val=dataset_tokens("val"),
        tokenizer=dataset_file("tokenizer.json"),
        meta=dataset_file("meta.json"),
        initial=initial_model,
    output:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
        metrics=shown("results/{run}/metrics.jsonl", "metrics", "metrics", "{run}"),
        manifest="results/{run}/train.manifest.json",
    log:
        "results/{run}/train.log",
    benchmark:
        "results/{run}/train.benchmark.tsv"
    wildcard_constraints:
        run=not_one_of([*ENSEMBLES, *chain(*MILESTONES.values())]),
    conda:
        "../../envs/nanogpt.yaml"
    threads: 8
    resources:
        # A profile can set these. processes: how many train one model on one machine. launcher: the
        # command that starts them on several, such as `srun`. sharded: 1 splits the model among
        # them. They change only the last bits of results.
        processes=1,
        launcher="",
        sharded=0,
        mem_mb=memory_of("train"),
    params:
        settings=lambda wildcards: json.dumps(run_settings("model", "train")(wildcards)),
        code=stage_code("train"),
        initial_state=initial_state,
        # Checked against the dataset before training. Snakemake doesn't compare params that use
        # `input` with earlier ones, so another prompt trains nothing again.
        untracked=lambda wildcards, input: json.dumps(run_settings("sample")(wildcards)),
    shell:
        # SIGUSR1 would end this shell, and Python until its handler is set.
        "trap '' USR1; exec {resources.launcher} python \"$NANOGPT_TRAIN\" --run {wildcards.run}"
        " --input {input} --output {output} --settings {params.settings:q}"
        " --untracked {params.untracked:q} --code {params.code} --log {log} --threads {threads}"
        " --processes {resources.processes} --sharded {resources.sharded}"


for steps, runs in MILESTONES.items():
    add_variant("train", name_with_milestones(steps), runs, milestone_files(steps))


# Before a job starts.
processes_on_node()


rule import_model:
    """Convert another program's model to a nanogpt model, as a start for trainings."""
    input:
        imported_files,
    output:
        weights="resources/imported/{model}/model.safetensors",
        config="resources/imported/{model}/config.json",
        tokenizer="resources/imported/{model}/tokenizer.json",
        manifest="resources/imported/{model}/import_model.manifest.json",
    log:
        "resources/imported/{model}/import_model.log",
    benchmark:
        "resources/imported/{model}/import_model.benchmark.tsv"
    wildcard_constraints:
        model=any_of(IMPORTED),
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("import_model"),
    params:
        settings=lambda wildcards: {"source": IMPORTED[wildcards.model]},
        code=stage_code("import_model"),
        source_state=imported_state,
    script:
        "../scripts/import_model.py"


rule combine:
    """Combine the models of an ensemble's runs, to average their predictions."""
    input:
        weights=of_members("model.safetensors"),
        configs=of_members("config.json"),
        tokenizers=of_members("tokenizer.json"),
    output:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
        manifest="results/{run}/combine.manifest.json",
    log:
        "results/{run}/combine.log",
    benchmark:
        "results/{run}/combine.benchmark.tsv"
    wildcard_constraints:
        run=any_of(ENSEMBLES),
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("combine"),
    params:
        settings={},
        code=stage_code("combine"),
    script:
        "../scripts/combine.py"


rule count_ngrams:
    """Count the n-grams that a run mixes with its GPT. Training doesn't use them."""
    input:
        train=dataset_tokens("train"),
        val=dataset_tokens("val"),
        tokenizer=dataset_file("tokenizer.json"),
        meta=dataset_file("meta.json"),
    output:
        ngrams="results/{run}/model/ngrams.safetensors",
        manifest="results/{run}/count_ngrams.manifest.json",
    log:
        "results/{run}/count_ngrams.log",
    benchmark:
        "results/{run}/count_ngrams.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("count_ngrams"),
    params:
        settings=ngram_settings,
        code=stage_code("count_ngrams"),
    script:
        "../scripts/count_ngrams.py"


rule eval:
    """Evaluate a model on the whole validation split, and on equally much of the training split."""
    input:
        train=dataset_tokens("train"),
        val=dataset_tokens("val"),
        tokenizer=dataset_file("tokenizer.json"),
        meta=dataset_file("meta.json"),
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        model_tokenizer="results/{run}/model/tokenizer.json",
        ngrams=mixed_ngrams,
    output:
        eval=shown("results/{run}/eval.json", "eval", "evaluation", "{run}"),
        manifest="results/{run}/eval.manifest.json",
    log:
        "results/{run}/eval.log",
    benchmark:
        "results/{run}/eval.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("eval"),
    params:
        settings=run_settings("name", "dataset", "eval"),
        code=stage_code("eval"),
    script:
        "../scripts/eval.py"


rule sample:
    """Draw samples from a model."""
    input:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
        prompt=prompt_file,
        ngrams=mixed_ngrams,
    output:
        samples=shown("results/{run}/samples.txt", "samples", "samples", "{run}"),
        records="results/{run}/samples.jsonl",
        manifest="results/{run}/sample.manifest.json",
    log:
        "results/{run}/sample.log",
    benchmark:
        "results/{run}/sample.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 4
    resources:
        mem_mb=memory_of("sample"),
    params:
        settings=run_settings("name", "sample"),
        code=stage_code("sample"),
    script:
        "../scripts/sample.py"


rule bench:
    """Measure a model's speed of training and sampling, and the rate of matrix products."""
    input:
        train=dataset_tokens("train"),
        val=dataset_tokens("val"),
        tokenizer=dataset_file("tokenizer.json"),
        meta=dataset_file("meta.json"),
    output:
        bench=shown("results/{run}/bench.json", "bench", "speed", "{run}"),
        manifest="results/{run}/bench.manifest.json",
    log:
        "results/{run}/bench.log",
    benchmark:
        "results/{run}/bench.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    # All threads, so that no other job runs at the same time. It computes with train_threads.
    threads: 1024
    resources:
        mem_mb=memory_of("bench"),
    params:
        settings=bench_settings,
        code=stage_code("bench"),
        train_threads=train_threads,
    script:
        "../scripts/bench.py"


rule tensorboard:
    """Convert a run's metrics to an event file for TensorBoard."""
    input:
        metrics="results/{run}/metrics.jsonl",
    output:
        events="results/{run}/tensorboard/events.out.tfevents.metrics",
        manifest="results/{run}/tensorboard.manifest.json",
    log:
        "results/{run}/tensorboard.log",
    benchmark:
        "results/{run}/tensorboard.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("tensorboard"),
    params:
        settings={},
        code=stage_code("tensorboard"),
    script:
        "../scripts/tensorboard.py"
