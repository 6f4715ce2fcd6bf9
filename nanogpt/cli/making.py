"""Commands that run the workflow: prepare, train, eval."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.evaluations import Evaluation
from nanogpt.artifacts.records.metrics import read_metrics
from nanogpt.artifacts.states import METRICS, find_trainings
from nanogpt.cli.app import app, examples, named, optional, print_json
from nanogpt.cli.finding import Base, find_base, find_model, name_of_text, refuse_file
from nanogpt.cli.flags import FlagValues, given_by, with_flags
from nanogpt.cli.peers import translate
from nanogpt.cli.progress import Progress, overfitting
from nanogpt.cli.workflow import DIED, make
from nanogpt.config.adding import add_variant, show_command
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.config.loading import read
from nanogpt.config.messages import look_up
from nanogpt.config.resolving import resolve_run, run_names
from nanogpt.config.schema import Config, EvalSettings, Run
from nanogpt.config.trained import check_model
from nanogpt.config.variants import (
    NO_VALUE,
    Given,
    Variant,
    new_dataset,
    parse,
    resolve_with,
    vary_dataset,
    vary_run,
)
from nanogpt.data.sources import find_files
from nanogpt.errors import UserError
from nanogpt.planning.announcing import announce_trainings
from nanogpt.planning.stages import ShardedDatasets, files_of_dataset
from nanogpt.project import HERE, NGRAMS_FILE
from nanogpt.training.state_files import saved_steps

TEXTFILE = "textfile"


@app.command
@examples(
    "prepare",
    "nanogpt prepare shakespeare_char",
    "nanogpt prepare textfile ~/books/novel.txt --output=novel --val_ratio=0.05",
    "nanogpt prepare shakespeare --tokenizer=bpe --output=shakespeare_small",
)
@with_flags("prepare")
def prepare(
    dataset: Annotated[Positional[str], named("DATASET")],
    path: Annotated[Positional[str], optional("[PATH]")] = "",
    *,
    flags: FlagValues,
    output: Annotated[str, optional("NAME")] = "",
    cores: str = "all",
) -> None:
    """Turn a text into tokens, in results/datasets/<dataset>/.

    Flags that change a dataset's settings make a new dataset, with an entry in resources/config/.

    Args:
        dataset: a dataset of config.yaml, a text in resources/texts/, or `textfile` and a path.
        path: with `textfile`: a text file or a directory of texts, anywhere, in any encoding.
        output: name of the dataset; if not given, made from the text's name or the flags.
        cores: number of cores to use.
    """
    given = given_by("prepare", flags)
    if path and dataset != TEXTFILE:
        raise UserError(
            f"{path}: unexpected argument; for a text, run `nanogpt prepare textfile {path}`"
        )

    def vary(config: Config) -> Variant:
        if dataset == TEXTFILE and (path or TEXTFILE not in config.datasets):
            return _of_text(config, path, given, output)
        if dataset not in config.datasets:
            refuse_file(dataset)
        return vary_dataset(config, dataset, given, output)

    variant, fragment = _add(vary, show_command("prepare", dataset, given, output, path))
    directory = HERE.datasets / variant.name
    files = files_of_dataset(variant.name, ShardedDatasets(read()))
    code = make([str(directory / name) for name in files], cores)
    if code:
        if code > DIED:
            print(f"{variant.name}: stopped; run the same command to continue", file=sys.stderr)
        elif fragment and not any(directory.glob("*.bin")):
            fragment.unlink()  # the mistake is probably in the text or in a flag
        sys.exit(code)
    print(f"{directory}: dataset ready; next: nanogpt train --dataset={variant.name}")


@app.command
@examples(
    "train",
    "nanogpt train shakespeare_char",
    "nanogpt train --dataset=novel --device=cpu --max_iters=300 --n_layer=4",
    "nanogpt train shakespeare_char --matrix_lr=0.01 --name=slower --sample.seed=2",
)
@with_flags("train")
def train(
    run: Annotated[Positional[str], optional("[RUN]")] = "",
    *,
    flags: FlagValues,
    dataset: Annotated[str, optional("DATASET")] = "",
    name: Annotated[str, optional("NAME")] = "",
    eval_only: bool = False,
    complete: bool = False,
    cores: str = "all",
) -> None:
    """Train a model, in results/<run>/.

    Flags that change a run's settings make a new run, with an entry in resources/config/; the
    original run doesn't change. The defaults below are config.yaml's, or built in if it has none.
    The run's own settings override them.

    Args:
        run: a run or a dataset of config.yaml, a text in resources/texts/, or a nanoGPT preset
            such as train_shakespeare_char.
        dataset: the dataset to train on; without a run: trains the dataset's own run.
        name: name of the new run; if not given, made from the flags.
        eval_only: evaluate the run with these flags instead, as `nanogpt eval` does.
        complete: also evaluate and sample, which writes eval.json and samples.txt.
        cores: number of cores to use.
    """
    config = read(HERE.config_file)
    base = find_base(config, run, dataset)
    given = [*base.given, *given_by("train", flags)]
    if eval_only:
        _evaluate_only(config, base, given, name, cores)
        return
    variant, fragment = _add(
        lambda config: vary_run(config, base.run, given, name),
        show_command("train", base.run, given, name),
    )
    config = read(HERE.config_file)  # now with the new run
    resolved = resolve_run(config, variant.name)
    directory = HERE.results / variant.name
    files = ["metrics.jsonl", "model/model.safetensors", "model/config.json"]
    files += ["model/tokenizer.json", *([f"model/{NGRAMS_FILE}"] if resolved.ngram else [])]
    files += ["eval.json", "samples.txt"] if complete else []
    targets = [str(directory / file) for file in files]
    announce_trainings(config, targets, expected=variant.name)
    code = make(targets, cores, Progress(variant.name, resolved.train.max_iters))
    if code:
        state = find_trainings(HERE).get(variant.name)
        steps = saved_steps(state) if state else []
        if steps:
            print(
                f"{variant.name}: saved at step {steps[-1]:,}; run the same command to continue",
                file=sys.stderr,
            )
        elif code > DIED:
            print(f"{variant.name}: stopped; run the same command to continue", file=sys.stderr)
        elif fragment and state is None:
            fragment.unlink()  # nothing was trained: the mistake is probably in a flag
        sys.exit(code)
    _tell_result(variant.name, resolved.train.max_iters, complete)


def _tell_result(run: str, max_iters: int, complete: bool) -> None:
    """Print what a training has made, what to do next, and advice if it was too long."""
    directory = HERE.results / run
    advice = overfitting(read_metrics(directory / METRICS), max_iters)
    if advice:
        print(f"{run}: {advice}", file=sys.stderr)
    more, then = "train.log", f", nanogpt eval {run}"
    if complete:
        more, then = "eval.json, samples.txt", ""
    print(f"{directory}: model/, metrics.jsonl, {more}; next: nanogpt sample {run}{then}")


@app.command(name="eval")
@examples(
    "eval",
    "nanogpt eval shakespeare_char",
    "nanogpt eval shakespeare_char --batch_size=64 --device=cpu",
    "nanogpt eval results/demo/model --dataset=playwright --json",
)
@with_flags("eval")
def evaluate(
    model: Annotated[Positional[str], optional("[MODEL]")] = "",
    *,
    flags: FlagValues,
    dataset: Annotated[str, optional("DATASET")] = "",
    json: bool = False,
    cores: str = "all",
) -> None:
    """Evaluate a model on its dataset's whole validation split.

    For a run without flags, this writes results/<run>/eval.json. With flags, or for a model
    directory, the results are only printed.

    Args:
        model: a run or a model directory.
        dataset: the dataset; if not given, that of the run.
        json: print all results as JSON.
        cores: number of cores to use, without flags.
    """
    _evaluate(model, dataset, given_by("eval", flags), cores, json)


def _of_text(config: Config, path: str, given: Sequence[Given], output: str) -> Variant:
    """Define a dataset for a text that can be anywhere."""
    if not path:
        raise UserError(
            "prepare textfile: the path is missing; run `nanogpt prepare textfile "
            "PATH --output=NAME`"
        )
    text = Path(path).expanduser().resolve()
    if text == Path(text.anchor):
        raise UserError(f"{path}: this is the whole disk; name a text or a directory of texts")
    root = HERE.root.resolve()
    where = text.relative_to(root) if text.is_relative_to(root) else text
    corpus = Corpus(files=[str(where)])
    name = output or name_of_text(text)
    if name in ("", TEXTFILE):
        raise UserError(f"{path}: can't be made into a name; give one with --output=NAME")
    find_files(name, corpus)  # UserError if there isn't one
    dataset = Dataset()
    parsed = parse(given, {"corpus": corpus, "dataset": dataset})
    of_corpus = {one.setting: one.value for one in parsed if one.group == "corpus"}
    of_dataset = {one.setting: one.value for one in parsed if one.group == "dataset"}
    corpus, dataset = corpus.model_copy(update=of_corpus), dataset.model_copy(update=of_dataset)
    return new_dataset(config, name, dataset, corpus)


def _add(vary: Callable[[Config], Variant], made_by: str) -> tuple[Variant, Path | None]:
    """Make a variant, and write its fragment unless it already exists. Returns both."""
    variant, fragment = add_variant(vary, made_by)
    if fragment:
        print(f"{fragment}: settings of {variant.name}", file=sys.stderr)
    return variant, fragment


def _evaluate_only(
    config: Config, base: Base, given: Sequence[Given], name: str, cores: str
) -> None:
    """Evaluate the model that `train` with these flags would make, without making a run.

    Flags that both commands have, such as `--batch_size`, are used for the evaluation.

    Errors: UserError if no run has such a model.
    """
    run = look_up(run_names(config), name, "--name", "run") if name else base.run
    try:
        variant = vary_run(config, run, given)
    except UserError:
        _refuse_init_from(given)  # has a better message for nanoGPT's `--init_from=gpt2`
        raise
    if not variant.entries:
        _evaluate_run(config, resolve_run(config, variant.name), cores)
        return
    _refuse_init_from(given)
    of_model = [one for one in given if one.group in ("model", "ngram")]
    if vary_run(config, run, of_model).entries:
        listed = ", ".join(f"{one.name} {one.value}" for one in of_model)
        raise UserError(
            f"--eval_only: there isn't a run `{run}` with {listed} yet; train it first, with the "
            "same command without --eval_only"
        )
    of_eval = [one for one in given if _is_of_eval(one)]
    unused = [one.setting for one in given if one.group and one not in (*of_eval, *of_model)]
    if unused:
        print(f"{', '.join(unused)}: ignored, since evaluation doesn't use it", file=sys.stderr)
    dataset = next((one.value for one in base.given if one.setting == "dataset"), "")
    _evaluate(run, dataset, [replace(one, group="eval") for one in of_eval], cores)


def _refuse_init_from(given: Sequence[Given]) -> None:
    """Raise UserError for evaluating another model with `--init_from`."""
    for one in given:
        if one.setting == "init_from" and one.value not in NO_VALUE:
            translate("eval", one.setting, one.value)


def _is_of_eval(given: Given) -> bool:
    """Whether a flag of `train` also applies to evaluation, such as `--batch_size`."""
    return given.group in ("train", "eval") and given.setting in EvalSettings.model_fields


def _evaluate(
    model: str, dataset: str, given: Sequence[Given], cores: str, json: bool = False
) -> None:
    """Evaluate a run or a model directory with settings from flags, and print the results."""
    directory, run = find_model(model, dataset)
    if not run:
        if not dataset:
            raise UserError(
                f"{directory}: the dataset is missing; give the one to evaluate on "
                "with --dataset=NAME"
            )
        base = EvalSettings()
        changes = {one.setting: one.value for one in parse(given, {"eval": base})}
        _print_evaluation(
            _compute(directory.parent.name, directory, dataset, base.model_copy(update=changes)),
            json,
        )
        return
    config = read(HERE.config_file)
    resolved = resolve_with(config, run, given)
    if resolved == resolve_run(config, run) and dataset in ("", resolved.dataset):
        _evaluate_run(config, resolved, cores, json)
        return
    check_model(directory, run)
    ngrams = directory / NGRAMS_FILE if resolved.ngram else None
    on = dataset or resolved.dataset
    _print_evaluation(_compute(run, directory, on, resolved.eval, ngrams), json)


def _evaluate_run(config: Config, run: Run, cores: str, json: bool = False) -> None:
    """Make a run's eval.json with the workflow, and print it."""
    path = HERE.results / run.name / "eval.json"
    announce_trainings(config, [str(path)])
    code = make([str(path)], cores, Progress(run.name, run.train.max_iters))
    if code:
        sys.exit(code)
    _print_evaluation(read_record(path, Evaluation), json)
    print(f"{path}: all results", file=sys.stderr)


def _compute(
    run: str, model: Path, dataset: str, settings: EvalSettings, ngrams: Path | None = None
) -> Evaluation:
    """Evaluate a model without keeping any files."""
    from nanogpt.devices import resolve
    from nanogpt.evaluation.evaluate import evaluate

    directory = HERE.datasets / dataset
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "eval.json"
        return evaluate(run, directory, model, resolve(settings), path, ngrams)


def _print_evaluation(evaluation: Evaluation, json: bool) -> None:
    if json:
        print_json(evaluation.content())
        return
    print(f"{evaluation.run} on {evaluation.dataset}")
    rows = [("validation", evaluation.val), ("training", evaluation.train)]
    for name, split in rows:
        print(
            f"  {name:<10}  {split.loss:.4f} nats per token, perplexity {split.perplexity:.2f}, "
            f"{split.bits_per_byte:.4f} bits per byte, of {split.n_tokens:,} tokens"
        )
    if evaluation.mixture:
        loss = evaluation.mixture.across_windows.loss
        print(f"  with n-grams {loss:.4f} nats per token of the validation split")
    estimate = evaluation.nanogpt_estimate
    print(f"  nanoGPT's estimate: train {estimate.train:.4f}, val {estimate.val:.4f}")
