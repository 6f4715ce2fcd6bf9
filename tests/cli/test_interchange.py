"""The commands export and import: arguments in any order, one line of output, files that work."""

from itertools import permutations

import pytest

from nanogpt.cli.main import main
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
def test_options_and_paths_come_in_any_order(words, ours, tmp_path, capsys):
    main(["export", *(str(ours) if word == "SOURCE" else word for word in words)])
    assert capsys.readouterr().out == "exported: GPT2LMHeadModel for transformers\n"
    back = ["--from" if word == "--to" else word for word in words]
    places = {"SOURCE": "exported", "exported": "results/back/model"}
    main(["import", *(places.get(word, word) for word in back)])
    assert_same_model(ours, tmp_path / "results/back/model")


def test_a_model_is_exported_to_nanogpt_and_back_again(ours, tmp_path, capsys):
    main(["export", "results/demo/model", "out", "--to", "nanogpt"])
    main(["import", "out", "results/back/model", "--from", "nanogpt"])
    assert_same_model(ours, tmp_path / "results/back/model")
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("results/back/model: ")
    assert err == ""
    main(["sample", "results/back/model", "--num-samples", "1", "--max-new-tokens", "5"])
    assert load_model(tmp_path / "results/back/model").tokenizer


def test_a_run_is_exported_by_its_name(ours, tmp_path):
    (tmp_path / "config.yaml").write_text(
        "{corpora: {demo: {files: text.txt}}, datasets: {demo: {}}}"
    )
    main(["export", "demo", "demo", "--to", "huggingface"])
    main(["export", "demo", "again", "--to", "huggingface"])  # not the new directory of that name
    assert (tmp_path / "demo/README.md").read_text() == (tmp_path / "again/README.md").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["export", "dmeo", "third", "--to", "huggingface"])
    assert ended.value.code == "error: dmeo: no model here, and no run `dmeo`; did you mean `demo`?"
    (ours / "config.json").unlink()
    with pytest.raises(SystemExit, match="no model yet; train it: `nanogpt train demo`"):
        main(["export", "demo", "third", "--to", "huggingface"])
    assert not (tmp_path / "third").exists()


def test_ngrams_beside_a_model_are_left_with_one_line(ours, caplog):
    (ours / "ngrams.safetensors").write_bytes(b"counts")
    main(["export", "results/demo/model", "out", "--to", "nanogpt"])
    said = "results/demo/model/ngrams.safetensors: n-grams aren't exported, only the GPT"
    assert [record.getMessage() for record in caplog.records] == [said]
