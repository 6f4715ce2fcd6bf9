"""An export is a result like others: a target with a manifest, rerun when something changes."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from tests.workflow.projects import (
    EXPORTS,
    FORMATS,
    Computed,
    error_of,
    make,
    nanogpt,
    planned,
    replacement,
    results,
    setting,
    snakemake,
)

KEPT = ("results/one/export/*/*", "results/one/export/nanogpt/data/one/meta.pkl")


def files(project: Path) -> dict[str, bytes]:
    paths = [path for path in project.glob("results/one/export/**/*") if path.is_file()]
    return {str(path.relative_to(project)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_an_export_equals_the_commands_output(done_project: Path, tmp_path: Path) -> None:
    for form in ("huggingface", "gguf", "nanogpt"):
        line = ("export", "results/one/model", str(tmp_path / form), "--to", form)
        assert nanogpt(done_project, *line).returncode == 0
        there = done_project / "results/one/export" / form
        ours = {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()}
        theirs = {
            p.relative_to(tmp_path / form): p.read_bytes()
            for p in (tmp_path / form).rglob("*")
            if p.is_file()
        }
        assert ours == theirs
        assert ours


def test_an_export_has_the_runs_card_and_vocabulary(done_project: Path) -> None:
    card = (done_project / "results/one/export/huggingface/README.md").read_text()
    evaluation = json.loads((done_project / "results/one/eval.json").read_text())
    assert f"| validation | {evaluation['val']['loss']:.4f} |" in card
    manifest = json.loads((done_project / "results/one/train.manifest.json").read_text())
    assert all(digest in card for digest in manifest["inputs"].values())
    assert "max_iters: 20" in card
    meta = pickle.loads(
        (done_project / "results/one/export/nanogpt/data/one/meta.pkl").read_bytes()
    )
    saved = json.loads((done_project / "results/one/model/tokenizer.json").read_text())
    assert "".join(meta["itos"].values()) == saved["vocabulary"]


def test_a_lost_export_is_restored_from_the_cache(project: Path, computed: Computed) -> None:
    before = files(project)
    shutil.rmtree(project / "results/one/export")
    run = make(project, *EXPORTS, NANOGPT_CACHE=str(computed.cache))
    assert run.stderr.count("(from the cache)") == 3
    assert files(project) == before


@pytest.mark.slow
def test_retraining_replaces_the_whole_export(project: Path, computed: Computed) -> None:
    before = files(project)
    setting("runs", "one", "train", "seed", value=3)(project)
    assert planned(project, *EXPORTS)["export_nanogpt"] == 1
    make(project, *EXPORTS, NANOGPT_CACHE=str(computed.cache))
    after = files(project)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in EXPORTS[1:])
    manifests = [f"results/one/{rule}.manifest.json" for rule in sorted(FORMATS - {"import_model"})]
    assert nanogpt(project, "verify", *manifests).returncode == 0


def test_editing_one_format_remakes_only_its_exports(project: Path) -> None:
    edit = replacement(
        "nanogpt/interchange/gguf_files.py", "4 * settings.n_embd", "settings.n_embd * 4"
    )
    edit(project)
    assert planned(project, *EXPORTS) == {"export_gguf": 1}


@pytest.mark.parametrize(
    ("form", "file"), [("huggingface", "config.json"), ("gguf", "one.gguf"), ("nanogpt", "ckpt.pt")]
)
def test_an_unsupported_architecture_is_found_before_a_training_starts(
    essays: Path, form: str, file: str
) -> None:
    setting("models", "tiny", "position", value="rotary")(essays)
    error = error_of(snakemake(essays, f"results/one/export/{form}/{file}"))
    assert error.startswith("error: runs.one: ")
    assert "position: rotary" in error
    assert not (essays / "results").exists()


@pytest.mark.parametrize(
    ("tokenizers", "tokens"),
    [
        ({"play": "byte"}, "bytes"),
        ({"play": "bpe"}, "byte pairs of its own"),
        ({"play": "others", "others": "bpe"}, "byte pairs of its own"),
    ],
    ids=["byte", "bpe", "another dataset's"],
)
def test_an_unsupported_tokenizer_is_found_before_a_training_starts(
    essays: Path, tokenizers: dict[str, str], tokens: str
) -> None:
    for dataset, tokenizer in tokenizers.items():
        entry = {"corpus": "play", "tokenizer": tokenizer}
        setting("datasets", dataset, value=entry)(essays)
    error = error_of(snakemake(essays, "results/one/export/nanogpt/ckpt.pt"))
    assert error == (
        f"error: runs.one: nanoGPT doesn't support its tokens ({tokens}); train with "
        "`tokenizer: char` or `tokenizer: gpt2` to export to it"
    )
    assert not (essays / "results").exists()


def test_an_unsupported_gelu_is_found_before_a_training_starts(essays: Path) -> None:
    setting("models", "tiny", "activation", value="gelu_tanh")(essays)
    error = error_of(snakemake(essays, "results/one/export/nanogpt/ckpt.pt"))
    assert error.startswith("error: runs.one: nanoGPT doesn't support activation: gelu_tanh, ")
    assert planned(essays, "results/one/export/gguf/one.gguf")["export_gguf"] == 1


def test_a_missing_package_is_found_before_a_training_starts(essays: Path) -> None:
    (essays / "gguf.py").write_text("raise ImportError")  # instead of the installed one
    error = error_of(snakemake(essays, "results/one/export/gguf/one.gguf"))
    assert error == "error: package `gguf` isn't installed; run `pip install gguf`"
    assert not (essays / "results").exists()


def test_exporting_an_ensemble_is_an_error_that_names_its_runs(empty_project: Path) -> None:
    error = error_of(snakemake(empty_project, "results/both/export/huggingface/config.json"))
    assert error == (
        "error: runs.both: an ensemble, which no other program can run; export one of its runs: "
        "`one`, `two`"
    )


def test_a_run_with_ngrams_is_exported_without_them_and_with_a_note(project: Path) -> None:
    run = make(project, "results/mixed/export/nanogpt/ckpt.pt")
    said = "results/mixed/model/ngrams.safetensors: not exported; only the GPT is"
    assert run.stderr.count(said) == 1
    assert results(project, "results/mixed/export/nanogpt/data/mixed/meta.pkl")
