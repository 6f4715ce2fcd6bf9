# Corpora: where raw text comes from.
#
# reads   a URL or a mirror; nothing for a built-in corpus
# writes  resources/corpora/<corpus>/<file>


rule download:
    """Fetch a corpus by its URL, from a mirror if there is one."""
    output:
        text="resources/corpora/{corpus}/{file}",
        manifest="resources/corpora/{corpus}/{file}.download.manifest.json",
    params:
        settings=corpus_settings,
        code=lambda wildcards: stage_code("download"),
    wildcard_constraints:
        corpus=names_matching("url"),
        file=r"(?!.*\.(log|tsv|json)$)[^/]+",
    log:
        "resources/corpora/{corpus}/{file}.download.log",
    benchmark:
        "resources/corpora/{corpus}/{file}.download.benchmark.tsv"
    threads: 1
    conda:
        "../../envs/nanogpt.yaml"
    script:
        "../scripts/download.py"


rule generate:
    """Write a built-in corpus."""
    output:
        text="resources/corpora/{corpus}/input.txt",
        manifest="resources/corpora/{corpus}/generate.manifest.json",
    params:
        settings=corpus_settings,
        code=lambda wildcards: stage_code("generate"),
    wildcard_constraints:
        corpus=names_matching("builtin"),
    log:
        "resources/corpora/{corpus}/generate.log",
    benchmark:
        "resources/corpora/{corpus}/generate.benchmark.tsv"
    threads: 1
    conda:
        "../../envs/nanogpt.yaml"
    script:
        "../scripts/generate.py"
