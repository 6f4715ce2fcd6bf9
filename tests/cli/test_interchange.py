"""The commands `export` and `import`: their arguments, output and files."""

from itertools import permutations

import pytest
import yaml

from nanogpt.artifacts.manifests import environment
from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.cli.main import main
from nanogpt.config.parameters import as_parameters
from nanogpt.config.schema import TrainSettings
from nanogpt.files.atomic import sha256_file
from nanogpt.model.checkpoints import load_model
from tests.interchange.models import assert_same_model, write_model


@pytest.fixture
def ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_model(tmp_path / "results/demo/model")


ORDERS = [
    [word for part in order for word in part]
    for order in permutations((["SOURCE"], ["--to", "huggingface"], ["exported"]))
    if order.index(["SOURCE"]) < order.index(["exported"])
]


@pytest.mark.parametrize("words", ORDERS, ids=" ".join)
def test_options_and_paths_can_be_in_any_order(words, ours, tmp_path, capsys):
    main(["export", *(str(ours) if word == "SOURCE" else word for word in words)])
    assert capsys.readouterr().out == "exported: GPT2LMHeadModel for transformers\n"
    back = ["--from" if word == "--to" else word for word in words]
    places = {"SOURCE": "exported", "exported": "results/back/model"}
    main(["import", *(places.get(word, word) for word in back)])
    assert_same_model(ours, tmp_path / "results/back/model")


def test_model_survives_export_to_nanogpt_and_import(ours, tmp_path, capsys):
    main(["export", "results/demo/model", "out", "--to", "nanogpt"])
    main(["import", "out", "results/back/model", "--from", "nanogpt"])
    assert_same_model(ours, tmp_path / "results/back/model")
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("results/back/model: ")
    assert err == ""
    main(["sample", "results/back/model", "--num-samples", "1", "--max-new-tokens", "5"])
    assert load_model(tmp_path / "results/back/model").tokenizer


def test_run_can_be_exported_by_name(ours, tmp_path):
    (tmp_path / "config.yaml").write_text(
        "{corpora: {demo: {files: text.txt}}, datasets: {demo: {}}}"
    )
    main(["export", "demo", "demo", "--to", "huggingface"])
    main(
        ["export", "demo", "again", "--to", "huggingface"]
    )  # the run, not the new directory with its name
    assert (tmp_path / "demo/README.md").read_text() == (tmp_path / "again/README.md").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["export", "dmeo", "third", "--to", "huggingface"])
    assert ended.value.code == "error: no run or model directory `dmeo`; did you mean `demo`?"
    (ours / "config.json").unlink()
    with pytest.raises(SystemExit, match="no model yet; train it with `nanogpt train demo`"):
        main(["export", "demo", "third", "--to", "huggingface"])
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("settings", "shown", "unused"),
    [
        (
            {"optimizer": "muon", "lr_schedule": "wsd"},
            {"matrix_lr": 0.02, "ns_steps": 3, "momentum": 0.95, "warmdown_ratio": 0.7},
            {"init_from"},
        ),
        (
            {"learning_rate": 0.002},
            {"optimizer": "adamw", "learning_rate": 0.002, "lr_schedule": "cosine"},
            {"matrix_lr", "ns_steps", "momentum", "warmdown_ratio"},
        ),
    ],
)
def test_model_card_lists_only_settings_that_training_used(settings, shown, unused, ours, tmp_path):
    train = as_parameters(TrainSettings.model_validate(settings))
    weights = sha256_file(ours / "model.safetensors")
    manifest = Manifest(
        stage="train",
        version="0" * 64,
        inputs={},
        parameters={"dataset": "demo", "model": {"n_layer": 2}, "train": train},
        code="c" * 64,
        outputs={"results/demo/model/model.safetensors": weights},
        environment=environment(1),
        wall_seconds=1.0,
    )
    write_record(ours.parent / "train.manifest.json", manifest)
    main(["export", "results/demo/model", "out", "--to", "huggingface"])
    card = (tmp_path / "out/README.md").read_text()
    groups = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert groups["dataset"] == "demo"
    assert groups["model"]["n_layer"] == 2
    assert groups["train"].items() >= shown.items()
    assert not unused & groups["train"].keys()


def test_ngrams_are_not_exported_and_a_warning_says_so(ours, caplog):
    (ours / "ngrams.safetensors").write_bytes(b"counts")
    main(["export", "results/demo/model", "out", "--to", "nanogpt"])
    said = "results/demo/model/ngrams.safetensors: not exported; only the GPT is"
    assert [record.getMessage() for record in caplog.records] == [said]
