"""Settings that are unknown, out of range, or contradict each other."""

import yaml

from nanogpt.config.loading import load, read
from tests.mistakes.base import CONFIG, TEXT, Mistake, code, write_files


def setting(title: str, text: str, message: str) -> Mistake:
    """Wrong settings: CONFIG with the top-level keys of `text` added or replaced."""
    return Mistake(
        title,
        code(text),
        lambda: load({**yaml.safe_load(CONFIG), **yaml.safe_load(text)}),
        message,
    )


def dropped_text(title: str, name: str, message: str) -> Mistake:
    """A text in resources/texts/ with an invalid name."""
    file = f"resources/texts/{name}.txt"

    def make() -> None:
        write_files({"config.yaml": CONFIG, file: TEXT})
        read()

    return Mistake(title, code(file), make, message)


SETTINGS = [
    setting(
        "a misspelled setting",
        "train: {max_iter: 3}",
        "train.max_iter: unknown setting; did you mean `max_iters`?",
    ),
    setting(
        "a misspelled group",
        "runs: {first: {trian: {max_iters: 3}}}",
        "runs.first.trian: unknown setting; did you mean `train`?",
    ),
    setting(
        "an unknown setting",
        "zzz: 1",
        "zzz: unknown setting; choose from `model`, `train`, `eval`, `sample`, `bench`, `ngram`, "
        "`corpora`, `datasets`, `models`, `runs`, `defaults`, `report`, `mirrors`",
    ),
    setting(
        "a group's setting at top level",
        "max_iters: 500",
        "max_iters: not a setting here; move it to `train`",
    ),
    setting(
        "a group's setting directly in a run",
        "runs: {first: {dataset: letters, max_iters: 500}}",
        "runs.first.max_iters: not a setting here; move it to `runs.first.train`",
    ),
    setting(
        "a corpus's setting in a dataset",
        "datasets: {letters: {corpus: text, encoding: utf-8}}",
        "datasets.letters.encoding: not a setting here; move it to `corpora.<name>`",
    ),
    setting(
        "a preset in a preset",
        "models: {small: {preset: tiny}}",
        "models.small.preset: not a setting here; move it to `model`",
    ),
    setting(
        "several mistakes at once",
        "train: {max_iter: 1, beta3: 1}",
        "train.max_iter: unknown setting; did you mean `max_iters`? (and 1 more mistake)",
    ),
    setting(
        "a word for a number",
        "models: {tiny: {n_layer: four}}",
        "models.tiny.n_layer: should be a number, such as 10000, 10_000 or 1e4 (found `four`)",
    ),
    setting(
        "a fraction for a whole number",
        "models: {tiny: {n_layer: 2.5}}",
        "models.tiny.n_layer: should be a whole number (found `2.5`)",
    ),
    setting(
        "yes for a number",
        "models: {tiny: {n_layer: yes}}",
        "models.tiny.n_layer: should be a number, not yes or no (found `yes`)",
    ),
    setting(
        "a number for yes or no",
        "models: {tiny: {bias: 2}}",
        "models.tiny.bias: should be true or false (found `2`)",
    ),
    setting(
        "no value for a number",
        "train: {max_iters: null}",
        "train.max_iters: should be a whole number (found nothing)",
    ),
    setting(
        "n-grams of zero tokens",
        "ngram: {max_order: 0}",
        "ngram.max_order: should be greater than or equal to 1 (found `0`)",
    ),
    setting(
        "n-grams that are too long",
        "ngram: {max_order: 100}",
        "ngram.max_order: should be less than or equal to 16 (found `100`)",
    ),
    setting(
        "a weight above 1",
        "ngram: {weight: 1.5}",
        "ngram.weight: should be less than or equal to 1 (found `1.5`)",
    ),
    setting(
        "a weight below 0",
        "ngram: {weight: -0.1}",
        "ngram.weight: should be greater than or equal to 0 (found `-0.1`)",
    ),
    setting(
        "n-grams that are neither on nor off",
        "ngram: maybe",
        "ngram: should be true or false (found `maybe`)",
    ),
    setting(
        "a list for a number",
        "train: {max_iters: [3]}",
        "train.max_iters: should be a whole number (found `[3]`)",
    ),
    setting(
        "a number for a prompt",
        "sample: {start: 5}",
        "sample.start: should be text; put it in quotes (found `5`)",
    ),
    setting(
        "a word for a list",
        "report: {runs: first}",
        "report.runs: should be a list (found `first`)",
    ),
    setting(
        "a list of runs", "runs: [first]", "runs: should be a mapping of settings (found `[first]`)"
    ),
    setting(
        "an empty corpus",
        "corpora: {text: }",
        "corpora.text: should be a mapping of settings (found nothing)",
    ),
    setting(
        "a number for a name",
        "runs: {2024: {dataset: letters}}",
        "runs.2024: should be text; put it in quotes (found `2024`)",
    ),
    setting(
        "no layers",
        "models: {tiny: {n_layer: 0}}",
        "models.tiny.n_layer: should be greater than or equal to 1 (found `0`)",
    ),
    setting(
        "a dropout of one",
        "models: {tiny: {dropout: 1}}",
        "models.tiny.dropout: should be less than 1 (found `1`)",
    ),
    setting(
        "a learning rate of zero",
        "train: {learning_rate: 0}",
        "train.learning_rate: should be greater than 0 (found `0`)",
    ),
    setting(
        "not a number",
        "train: {learning_rate: .nan}",
        "train.learning_rate: should be a finite number (found `nan`)",
    ),
    setting(
        "infinity",
        "train: {grad_clip: .inf}",
        "train.grad_clip: should be a finite number (found `inf`)",
    ),
    setting("a beta of one", "train: {beta2: 1}", "train.beta2: should be less than 1 (found `1`)"),
    setting(
        "a negative seed",
        "train: {seed: -1}",
        "train.seed: should be greater than or equal to 0 (found `-1`)",
    ),
    setting(
        "a seed beyond 63 bits",
        "train: {seed: 9223372036854775808}",
        "train.seed: should be less than 9223372036854775808 (found `9223372036854775808`)",
    ),
    setting(
        "all text held out for validation",
        "datasets: {letters: {corpus: text, val_ratio: 1}}",
        "datasets.letters.val_ratio: should be less than 1 (found `1`)",
    ),
    setting(
        "a vocabulary smaller than the 256 bytes",
        "datasets: {text: {tokenizer: bpe, vocab_size: 256}}",
        "datasets.text.vocab_size: should be greater than or equal to 257 (found `256`)",
    ),
    setting(
        "a negative top_k",
        "sample: {top_k: -1}",
        "sample.top_k: should be greater than or equal to 0 (found `-1`)",
    ),
    setting(
        "an unknown dtype",
        "train: {dtype: float64}",
        "train.dtype: should be `auto`, `float32`, `bfloat16` or `float16` (found `float64`)",
    ),
    setting(
        "an unknown device",
        "train: {device: gpu}",
        "train.device: should be auto, cpu, mps, cuda or cuda:N (found `gpu`)",
    ),
    setting(
        "an unknown activation",
        "models: {tiny: {activation: relu}}",
        "models.tiny.activation: should be `gelu`, `gelu_tanh` or `relu2` (found `relu`)",
    ),
    setting(
        "an unknown choice of weights to keep",
        "train: {keep: all}",
        "train.keep: should be `best` or `last` (found `all`)",
    ),
    setting(
        "an unknown split",
        "datasets: {text: {split: random}}",
        "datasets.text.split: should be `auto`, `position`, `document` or `last_file` (found "
        "`random`)",
    ),
    setting(
        "an unknown way to deduplicate",
        "datasets: {text: {deduplicate: off}}",
        "datasets.text.deduplicate: should be `none`, `exact` or `near` (found `no`)",
    ),
    setting(
        "filters that exclude each other",
        "datasets: {text: {min_characters: 100, max_characters: 50}}",
        "datasets.text: `max_characters` 50 is less than `min_characters` 100; no document has "
        "both, so correct one of them",
    ),
    setting(
        "an unknown tokenizer",
        "datasets: {text: {tokenizer: word}}",
        "datasets.text.tokenizer: no tokenizer or dataset `word`; choose from `char`, `bpe`, "
        "`gpt2`, `byte`, `text`",
    ),
    setting(
        "a dataset that uses its own tokenizer",
        "datasets: {text: {tokenizer: text}}",
        "datasets.text.tokenizer: circular reference: text -> text; set one of them to char, bpe, "
        "gpt2 or byte",
    ),
    setting(
        "datasets that use each other's tokenizers",
        "datasets: {one: {corpus: text, tokenizer: two}, two: {corpus: text, tokenizer: one}}",
        "datasets.one.tokenizer: circular reference: one -> two -> one; set one of them to char, "
        "bpe, gpt2 or byte",
    ),
    setting(
        "an unknown corpus",
        "datasets: {letters: {corpus: texd}}",
        "datasets.letters.corpus: no corpus `texd`; did you mean `text`?",
    ),
    setting(
        "a dataset without a corpus",
        "datasets: {texts: {}}",
        "datasets.texts.corpus: no corpus `texts`; did you mean `text`?",
    ),
    setting(
        "an unknown dataset",
        "runs: {first: {dataset: leters}}",
        "runs.first.dataset: no dataset `leters`; did you mean `letters`?",
    ),
    setting(
        "an unknown model",
        "runs: {first: {dataset: letters, model: tinny}}",
        "runs.first.model: no model `tinny`; did you mean `tiny`?",
    ),
    setting(
        "an unknown run in the report",
        "report: {runs: [fist]}",
        "report.runs: no run `fist`; did you mean `first`?",
    ),
    setting(
        "the same run twice in the report",
        "report: {runs: [first, first]}",
        "report.runs: `first` is listed twice; remove one",
    ),
    setting(
        "a run name that points outside results/",
        "runs: {../x: {dataset: letters}}",
        "runs: invalid name `../x`; use letters, digits, `.`, `-` and `_`, starting with a letter "
        "or digit",
    ),
    setting(
        "a dataset name that points outside results/datasets/",
        "datasets: {../x: {corpus: text}}",
        "datasets: invalid name `../x`; use letters, digits, `.`, `-` and `_`, starting with a "
        "letter or digit",
    ),
    setting(
        "a name with a space",
        "corpora: {my book: {files: book.txt}}",
        "corpora: invalid name `my book`; use letters, digits, `.`, `-` and `_`, starting with a "
        "letter or digit",
    ),
    setting(
        "a reserved name",
        "runs: {report: {dataset: letters}}",
        "runs: `report` is a reserved name; rename the run",
    ),
    setting(
        "a dataset with the name of a tokenizer",
        "datasets: {byte: {corpus: text}}",
        "datasets: `byte` is the name of a tokenizer; rename the dataset",
    ),
    setting(
        "n_head that doesn't divide n_embd",
        "model: {n_head: 3, n_embd: 10}",
        "runs.first.model: n_embd 10 is not divisible by n_head 3; change one of them",
    ),
    setting(
        "rotary positions with heads of an odd width",
        "model: {position: rotary, n_head: 2, n_embd: 6}",
        "runs.first.model: rotary positions need heads of even width, but n_embd 6 / n_head 2 is "
        "odd; change one of them",
    ),
    setting(
        "drafts in a run without n-grams",
        "sample: {draft: 4}",
        "runs.first.sample.draft: this run doesn't use n-grams; set `ngram: on` for it, `ngram: "
        "{weight: 0}` to use them for drafts only, or `draft: 0`",
    ),
    setting(
        "a min_lr above the learning rate",
        "train: {learning_rate: 1e-5}",
        "runs.first.train: min_lr 0.0001 is above learning_rate 1e-05; lower min_lr",
    ),
    setting(
        "a min_lr above the matrices' learning rate",
        "train: {optimizer: muon, matrix_lr: 0.01, min_lr: 0.02}",
        "runs.first.train: min_lr 0.02 is above matrix_lr 0.01; lower min_lr",
    ),
    setting(
        "a learning rate that reaches 0 before the end",
        "train: {min_lr: 0, max_iters: 600, lr_decay_iters: 200}",
        "runs.first.train: the learning rate reaches 0 at lr_decay_iters 200, before max_iters "
        "600; raise lr_decay_iters or min_lr",
    ),
    setting(
        "a warm-up as long as the training",
        "train: {warmup_iters: 50, max_iters: 50}",
        "runs.first.train: warmup_iters 50 leaves no steps for the decay, which ends at step 50; "
        "lower warmup_iters",
    ),
    setting(
        "a milestone after the last step",
        "train: {max_iters: 500, milestones: [100, 600]}",
        "runs.first.train.milestones: step 600 is after max_iters 500; remove it, or raise "
        "max_iters",
    ),
    setting(
        "`reproducible: anywhere` on a GPU",
        "train: {reproducible: anywhere, device: cuda}",
        "runs.first.train: `reproducible: anywhere` needs a CPU and float32; set `device: auto` "
        "and `dtype: auto`",
    ),
    setting(
        "int8 on a GPU",
        "sample: {dtype: int8, device: cuda}",
        "runs.first.sample: `dtype: int8` needs a CPU; set `device: cpu`, or another dtype",
    ),
    setting(
        "`reproducible: anywhere` with compile",
        "train: {reproducible: anywhere, compile: true}",
        "runs.first.train: `reproducible: anywhere` doesn't work with compile; set `compile: "
        "false`",
    ),
    setting(
        "a corpus without a source",
        "corpora: {text: {encoding: utf-8}}",
        "corpora.text: a corpus needs exactly one of `url`, `files` or `builtin`",
    ),
    setting(
        "a corpus with two sources",
        "corpora: {text: {files: text.txt, builtin: playwright}}",
        "corpora.text: a corpus needs exactly one of `url`, `files` or `builtin`",
    ),
    setting(
        "an FTP URL",
        "corpora: {text: {url: 'ftp://example.org/book.txt'}}",
        "corpora.text.url: `ftp://example.org/book.txt` isn't the URL of a file; use "
        "http(s)://host/path or s3://bucket/path",
    ),
    setting(
        "a URL without a file",
        "corpora: {text: {url: 'https://example.org/'}}",
        "corpora.text.url: `https://example.org/` isn't the URL of a file; use "
        "http(s)://host/path or s3://bucket/path",
    ),
    setting(
        "a descending range",
        "corpora: {text: {url: 'https://example.org/[2-1].txt'}}",
        "corpora.text.url: `https://example.org/[2-1].txt`: the range is descending; put the "
        "lowest number first",
    ),
    setting(
        "two URLs with the same file name",
        "corpora: {text: {url: ['https://example.org/a/x.txt', 'https://example.org/b/x.txt']}}",
        "corpora.text: two URLs end in the same file name; move one to another corpus",
    ),
    setting(
        "a short sha256",
        "corpora: {text: {files: text.txt, sha256: abc}}",
        "corpora.text.sha256: should be 64 lowercase hex digits (found `abc`)",
    ),
    setting(
        "a sha256 that YAML reads as a number",
        f"corpora: {{text: {{files: text.txt, sha256: {64 * '1'}}}}}",
        "corpora.text.sha256: should be text; put it in quotes (found "
        "`1111111111111111111111111111111111111111111111111111111111111111`)",
    ),
    setting(
        "a name that YAML reads as no",
        "runs: {first: {dataset: no}}",
        "runs.first.dataset: should be text; put it in quotes (found `no`)",
    ),
    setting(
        "a long list for a number",
        f"train: {{max_iters: {list(range(100))}}}",
        "train.max_iters: should be a whole number (found `[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, "
        "12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2…`)",
    ),
    setting(
        "a dataset with a reserved name",
        "datasets: {gpt2: {corpus: text}}",
        "datasets: `gpt2` is a reserved name; rename the dataset",
    ),
    setting(
        "one sha256 for several files",
        f"corpora: {{text: {{files: [a.txt, b.txt], sha256: {64 * 'a'}}}}}",
        "corpora.text: 1 sha256 for 2 files; give one per file, or none",
    ),
    setting(
        "an unknown encoding",
        "corpora: {text: {files: text.txt, encoding: utf-9}}",
        "corpora.text.encoding: unknown encoding `utf-9`; did you mean `utf_8`?",
    ),
    setting(
        "an unknown value of newlines",
        "corpora: {text: {files: text.txt, newlines: crlf}}",
        "corpora.text.newlines: should be `keep` or `lf` (found `crlf`)",
    ),
    dropped_text(
        "a text with the name of a run",
        "first",
        "resources/texts/first.txt: config.yaml has a run `first` on another dataset; rename the "
        "text",
    ),
    dropped_text(
        "a text with the name of a corpus",
        "text",
        "resources/texts/text.txt: config.yaml or resources/config has another corpus or dataset "
        "`text`; rename the text, or remove that entry",
    ),
    dropped_text(
        "a text with the name of a tokenizer",
        "char",
        "resources/texts/char.txt: `char` is the name of a tokenizer; rename the text",
    ),
    dropped_text(
        "a text with a reserved name",
        "gpt2",
        "resources/texts/gpt2.txt: `gpt2` is a reserved name; rename the text",
    ),
    dropped_text(
        "a text with a space in its name",
        "my book",
        "resources/texts/my book.txt: invalid name `my book`; rename the text: use letters, "
        "digits, `.`, `-` and `_`, starting with a letter or digit",
    ),
]
