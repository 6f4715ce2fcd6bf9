# A workflow with as many rules and jobs as ours, and nothing else: `benchmarks/dag.py` plans it.
#
# Names, inputs, outputs, logs, benchmarks, threads, memory and scripts are those of
# workflow/rules/, and params have their size. All values are literal: no functions, no settings, no
# checks.
RUNS = [f"run-{number}" for number in range(config["n_runs"])]
SETTINGS = "x" * 700
CODE = "0" * 64


rule all:
    input:
        "results/report/index.html",


rule download:
    output:
        text="resources/downloads/{file}",
        manifest="resources/downloads/{file}.manifest.json",
    log:
        "resources/downloads/{file}/download.log",
    benchmark:
        "resources/downloads/{file}/download.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule write_builtin:
    output:
        text="resources/corpora/{corpus}/input.txt",
        manifest="resources/corpora/{corpus}/write_builtin.manifest.json",
    log:
        "resources/corpora/{corpus}/write_builtin.log",
    benchmark:
        "resources/corpora/{corpus}/write_builtin.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule download_gpt2:
    output:
        merges="resources/tokenizers/gpt2/vocab.bpe",
        manifest="resources/tokenizers/gpt2/download_gpt2.manifest.json",
    log:
        "resources/tokenizers/gpt2/download_gpt2.log",
    benchmark:
        "resources/tokenizers/gpt2/download_gpt2.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule count:
    input:
        corpus="resources/corpora/{dataset}/{group}.txt",
    output:
        counts=temp("results/datasets/{dataset}/groups/{group}/counts.json"),
    log:
        "results/datasets/{dataset}/groups/{group}/count.log",
    benchmark:
        "results/datasets/{dataset}/groups/{group}/count.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 2
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule plan:
    input:
        counts="results/datasets/{dataset}/groups/0/counts.json",
    output:
        plan=temp("results/datasets/{dataset}/groups/plan.json"),
        tokenizer=temp("results/datasets/{dataset}/groups/tokenizer.json"),
    log:
        "results/datasets/{dataset}/groups/plan.log",
    benchmark:
        "results/datasets/{dataset}/groups/plan.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 8
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule encode:
    input:
        counts="results/datasets/{dataset}/groups/{group}/counts.json",
        plan="results/datasets/{dataset}/groups/plan.json",
        tokenizer="results/datasets/{dataset}/groups/tokenizer.json",
    output:
        train=temp("results/datasets/{dataset}/groups/{group}/train.bin"),
        val=temp("results/datasets/{dataset}/groups/{group}/val.bin"),
        totals=temp("results/datasets/{dataset}/groups/{group}/totals.json"),
    log:
        "results/datasets/{dataset}/groups/{group}/encode.log",
    benchmark:
        "results/datasets/{dataset}/groups/{group}/encode.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 2
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule prepare:
    input:
        corpus="resources/corpora/{dataset}/input.txt",
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
        "env.yaml"
    threads: 8
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule ngram:
    input:
        train="results/datasets/{dataset}/train.bin",
        val="results/datasets/{dataset}/val.bin",
        tokenizer="results/datasets/{dataset}/tokenizer.json",
        meta="results/datasets/{dataset}/meta.json",
    output:
        ngram="results/datasets/{dataset}/ngram.json",
        manifest="results/datasets/{dataset}/ngram.manifest.json",
    log:
        "results/datasets/{dataset}/ngram.log",
    benchmark:
        "results/datasets/{dataset}/ngram.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule train:
    input:
        train="results/datasets/play/train.bin",
        val="results/datasets/play/val.bin",
        tokenizer="results/datasets/play/tokenizer.json",
        meta="results/datasets/play/meta.json",
    output:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
        metrics="results/{run}/metrics.jsonl",
        manifest="results/{run}/train.manifest.json",
    log:
        "results/{run}/train.log",
    benchmark:
        "results/{run}/train.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 8
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule import_model:
    output:
        weights="resources/imported/{model}/model.safetensors",
        config="resources/imported/{model}/config.json",
        tokenizer="resources/imported/{model}/tokenizer.json",
        manifest="resources/imported/{model}/import_model.manifest.json",
    log:
        "resources/imported/{model}/import_model.log",
    benchmark:
        "resources/imported/{model}/import_model.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule combine:
    input:
        weights="results/run-0/model/model.safetensors",
        configs="results/run-0/model/config.json",
        tokenizers="results/run-0/model/tokenizer.json",
    output:
        weights="results/ensembles/{run}/model/model.safetensors",
        config="results/ensembles/{run}/model/config.json",
        tokenizer="results/ensembles/{run}/model/tokenizer.json",
        manifest="results/ensembles/{run}/combine.manifest.json",
    log:
        "results/ensembles/{run}/combine.log",
    benchmark:
        "results/ensembles/{run}/combine.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule count_ngrams:
    input:
        train="results/datasets/play/train.bin",
        val="results/datasets/play/val.bin",
        tokenizer="results/datasets/play/tokenizer.json",
        meta="results/datasets/play/meta.json",
    output:
        ngrams="results/{run}/model/ngrams.safetensors",
        manifest="results/{run}/count_ngrams.manifest.json",
    log:
        "results/{run}/count_ngrams.log",
    benchmark:
        "results/{run}/count_ngrams.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule eval:
    input:
        train="results/datasets/play/train.bin",
        val="results/datasets/play/val.bin",
        tokenizer="results/datasets/play/tokenizer.json",
        meta="results/datasets/play/meta.json",
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        model_tokenizer="results/{run}/model/tokenizer.json",
    output:
        eval="results/{run}/eval.json",
        manifest="results/{run}/eval.manifest.json",
    log:
        "results/{run}/eval.log",
    benchmark:
        "results/{run}/eval.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 8
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule sample:
    input:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
    output:
        samples="results/{run}/samples.txt",
        records="results/{run}/samples.jsonl",
        manifest="results/{run}/sample.manifest.json",
    log:
        "results/{run}/sample.log",
    benchmark:
        "results/{run}/sample.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 4
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule bench:
    input:
        train="results/datasets/play/train.bin",
        val="results/datasets/play/val.bin",
        tokenizer="results/datasets/play/tokenizer.json",
        meta="results/datasets/play/meta.json",
    output:
        bench="results/{run}/bench.json",
        manifest="results/{run}/bench.manifest.json",
    log:
        "results/{run}/bench.log",
    benchmark:
        "results/{run}/bench.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1024
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule tensorboard:
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
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule export_huggingface:
    input:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
    output:
        model="results/{run}/export/huggingface/model.safetensors",
        config="results/{run}/export/huggingface/config.json",
        generation_config="results/{run}/export/huggingface/generation_config.json",
        tokenizer="results/{run}/export/huggingface/tokenizer.json",
        tokenizer_config="results/{run}/export/huggingface/tokenizer_config.json",
        readme="results/{run}/export/huggingface/README.md",
        export="results/{run}/export/huggingface/export.json",
        manifest="results/{run}/export_huggingface.manifest.json",
    log:
        "results/{run}/export_huggingface.log",
    benchmark:
        "results/{run}/export_huggingface.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule export_gguf:
    input:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
    output:
        model="results/{run}/export/gguf/model.gguf",
        export="results/{run}/export/gguf/export.json",
        manifest="results/{run}/export_gguf.manifest.json",
    log:
        "results/{run}/export_gguf.log",
    benchmark:
        "results/{run}/export_gguf.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule export_nanogpt:
    input:
        weights="results/{run}/model/model.safetensors",
        config="results/{run}/model/config.json",
        tokenizer="results/{run}/model/tokenizer.json",
    output:
        ckpt="results/{run}/export/nanogpt/ckpt.pt",
        export="results/{run}/export/nanogpt/export.json",
        manifest="results/{run}/export_nanogpt.manifest.json",
    log:
        "results/{run}/export_nanogpt.log",
    benchmark:
        "results/{run}/export_nanogpt.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"


rule benches:
    input:
        "results/run-0/bench.json",


rule bench_report:
    input:
        metrics=expand("results/{run}/metrics.jsonl", run=RUNS),
        evals=expand("results/{run}/eval.json", run=RUNS),
        samples=expand("results/{run}/samples.txt", run=RUNS),
        events=expand("results/{run}/tensorboard/events.out.tfevents.metrics", run=RUNS),
        trained=expand("results/{run}/train.manifest.json", run=RUNS),
        evaluated=expand("results/{run}/eval.manifest.json", run=RUNS),
        sampled=expand("results/{run}/sample.manifest.json", run=RUNS),
        benches="results/run-0/bench.json",
        ngrams="results/datasets/play/ngram.json",
    output:
        page="results/report/index.html",
        markdown="results/report/report.md",
        table="results/report/runs.csv",
        columns="results/report/columns.csv",
        loss_tokens="results/report/loss_tokens.svg",
        loss_steps="results/report/loss_steps.svg",
        loss_seconds="results/report/loss_seconds.svg",
        loss_flops="results/report/loss_flops.svg",
        scaling="results/report/scaling.svg",
        speed="results/report/speed.svg",
        position="results/report/position.svg",
        calibration="results/report/calibration.svg",
        manifest="results/report/bench_report.manifest.json",
    log:
        "results/report/bench_report.log",
    benchmark:
        "results/report/bench_report.benchmark.tsv"
    conda:
        "env.yaml"
    threads: 1
    resources:
        mem_mb=1100,
    params:
        settings=SETTINGS,
        code=CODE,
    script:
        "work.py"
