# Corpora: where raw text comes from.
#
# reads   a URL or a mirror; nothing for a built-in corpus
# writes  resources/corpora/<corpus>/<file>


rule download:
    """Fetch a corpus by its URL, from a mirror if there is one."""
    output:
        text="resources/corpora/{corpus}/{file}",
        manifest="resources/corpora/{corpus}/{file}.download.manifest.json",
    log:
        "resources/corpora/{corpus}/{file}.download.log",
    benchmark:
        "resources/corpora/{corpus}/{file}.download.benchmark.tsv"
    wildcard_constraints:
        corpus=any_of(corpora_with("url")),
        file=any_of(corpus.file_name for corpus in corpora_with("url").values()),
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    params:
        settings=corpus_settings("url"),
        wanted_digest=wanted_digest,
        code=lambda wildcards: stage_code("download"),
    script:
        "../scripts/download.py"


rule generate:
    """Write a built-in corpus."""
    output:
        text="resources/corpora/{corpus}/input.txt",
        manifest="resources/corpora/{corpus}/generate.manifest.json",
    log:
        "resources/corpora/{corpus}/generate.log",
    benchmark:
        "resources/corpora/{corpus}/generate.benchmark.tsv"
    wildcard_constraints:
        corpus=any_of(corpora_with("builtin")),
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    params:
        settings=corpus_settings("n_characters", "seed"),
        code=lambda wildcards: stage_code("generate"),
    script:
        "../scripts/generate.py"
