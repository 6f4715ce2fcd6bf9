# The report: tables and plots over the runs that `report.runs` lists.
#
# reads   results/<run>/{metrics.jsonl,eval.json,samples.txt} of each
# writes  results/report/{index.html,report.md,runs.csv,loss.svg}


rule bench_report:
    """Compare runs: a table, their loss curves, their samples."""
    input:
        metrics=of_report_runs("results/{run}/metrics.jsonl"),
        evals=of_report_runs("results/{run}/eval.json"),
        samples=of_report_runs("results/{run}/samples.txt"),
        events=of_report_runs("results/{run}/tensorboard/events.out.tfevents.metrics"),
        template="nanogpt/templates/report.html",
    output:
        page="results/report/index.html",
        markdown="results/report/report.md",
        table="results/report/runs.csv",
        plot="results/report/loss.svg",
        manifest="results/report/bench_report.manifest.json",
    log:
        "results/report/bench_report.log",
    benchmark:
        "results/report/bench_report.benchmark.tsv"
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    params:
        settings={"runs": CONFIG.report.runs},
        code=lambda wildcards: stage_code("bench_report"),
    script:
        "../scripts/bench_report.py"
