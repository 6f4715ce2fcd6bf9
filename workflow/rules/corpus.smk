# Corpora: raw text from URLs or built in, and GPT-2's merges.
#
# reads   a URL or a mirror; nothing for a built-in corpus
# writes  resources/corpora/<corpus>/<file>, resources/tokenizers/gpt2/vocab.bpe
#
# Downloads are local rules, because a cluster's nodes may have no internet.


rule download:
    """Download a file of a corpus, from a mirror if there is one."""
    output:
        text="resources/corpora/{corpus}/{file}",
        manifest="resources/corpora/{corpus}/{file}.download.manifest.json",
    log:
        "resources/corpora/{corpus}/{file}.download.log",
    benchmark:
        "resources/corpora/{corpus}/{file}.download.benchmark.tsv"
    wildcard_constraints:
        corpus=any_of(corpora_with("url")),
        file=any_of(f for c in corpora_with("url").values() for f in c.downloads),
    localrule: True
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    params:
        settings=lambda wildcards: {"url": url_of(wildcards)},
        wanted_digest=wanted_digest,
        # A download doesn't depend on our code, so an upgrade downloads nothing again.
        code="",
    script:
        "../scripts/download.py"


rule write_builtin:
    """Write a built-in corpus."""
    output:
        text="resources/corpora/{corpus}/input.txt",
        manifest="resources/corpora/{corpus}/write_builtin.manifest.json",
    log:
        "resources/corpora/{corpus}/write_builtin.log",
    benchmark:
        "resources/corpora/{corpus}/write_builtin.benchmark.tsv"
    wildcard_constraints:
        corpus=any_of(corpora_with("builtin")),
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    params:
        settings=builtin_settings,
        code=stage_code("write_builtin"),
    script:
        "../scripts/write_builtin.py"


rule download_gpt2:
    """Download the merges of GPT-2's tokenizer, from a mirror if there is one."""
    output:
        merges="resources/tokenizers/gpt2/vocab.bpe",
        manifest="resources/tokenizers/gpt2/download_gpt2.manifest.json",
    log:
        "resources/tokenizers/gpt2/download_gpt2.log",
    benchmark:
        "resources/tokenizers/gpt2/download_gpt2.benchmark.tsv"
    localrule: True
    conda:
        "../../envs/nanogpt.yaml"
    threads: 1
    params:
        settings={},
        # A download doesn't depend on our code, so an upgrade downloads nothing again.
        code="",
    script:
        "../scripts/download_gpt2.py"
