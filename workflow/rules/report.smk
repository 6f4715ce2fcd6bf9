# The report: tables and charts on the runs in `report.runs`.
#
# reads   results/<run>/{metrics.jsonl,eval.json,samples.txt,bench.json,*.manifest.json}
#         results/datasets/<dataset>/ngram.json
# writes  results/report/{index.html,report.md,runs.csv,columns.csv,*.svg}


rule benches:
    """Measure the speed of each distinct model in the report, and nothing else."""
    input:
        of_report_models("results/{run}/bench.json"),


rule bench_report:
    """Compare runs: tables; charts of loss, size and speed; samples side by side."""
    input:
        metrics=of_report_runs("results/{run}/metrics.jsonl"),
        evals=of_report_runs("results/{run}/eval.json"),
        samples=of_report_runs("results/{run}/samples.txt"),
        events=of_report_runs("results/{run}/tensorboard/events.out.tfevents.metrics"),
        trained=of_report_runs("results/{run}/train.manifest.json"),
        evaluated=of_report_runs("results/{run}/eval.manifest.json"),
        sampled=of_report_runs("results/{run}/sample.manifest.json"),
        benches=of_report_models("results/{run}/bench.json"),
        ngrams=of_report_datasets("results/datasets/{dataset}/ngram.json"),
    output:
        page=shown("results/report/index.html", "page", "page", "all runs"),
        markdown="results/report/report.md",
        table=shown("results/report/runs.csv", "runs", "table", "all runs"),
        columns=shown(
            "results/report/columns.csv", "columns", "its columns", "all runs"
        ),
        loss_tokens=shown(
            "results/report/loss_tokens.svg", "loss", "loss over tokens", "all runs"
        ),
        loss_steps=shown(
            "results/report/loss_steps.svg", "loss", "loss over steps", "all runs"
        ),
        loss_seconds=shown(
            "results/report/loss_seconds.svg", "loss", "loss over seconds", "all runs"
        ),
        loss_flops=shown(
            "results/report/loss_flops.svg", "loss", "loss over FLOPs", "all runs"
        ),
        scaling=shown(
            "results/report/scaling.svg", "scaling", "loss over size", "all runs"
        ),
        speed=shown("results/report/speed.svg", "speed", "speed", "all runs"),
        position=shown(
            "results/report/position.svg", "position", "loss over context", "all runs"
        ),
        calibration=shown(
            "results/report/calibration.svg", "calibration", "calibration", "all runs"
        ),
        manifest="results/report/bench_report.manifest.json",
    log:
        "results/report/bench_report.log",
    benchmark:
        "results/report/bench_report.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    resources:
        mem_mb=memory_of("bench_report"),
    params:
        settings={"runs": CONFIG.report.runs},
        code=stage_code("bench_report"),
    script:
        "../scripts/bench_report.py"
