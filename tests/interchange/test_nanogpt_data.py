"""nanoGPT's own scripts can read an exported dataset."""

import json
import pickle

import numpy as np
import pytest

from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.preparing import prepare
from nanogpt.errors import UserError
from nanogpt.interchange.nanogpt_data import export_dataset

TEXT = "once upon a time\n" * 8


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    prepare([path], Corpus(files=[str(path)]), Dataset(), tmp_path / "dataset")
    return tmp_path / "dataset"


def test_nanogpts_scripts_decode_an_export_to_the_text(dataset, tmp_path):
    export_dataset(dataset, tmp_path / "exported")
    meta = pickle.loads((tmp_path / "exported/meta.pkl").read_bytes())
    tokens = [
        np.fromfile(tmp_path / "exported" / name, np.uint16) for name in ("train.bin", "val.bin")
    ]
    assert "".join(meta["itos"][token] for token in np.concatenate(tokens).tolist()) == TEXT
    assert meta["vocab_size"] == len(set(TEXT))
    assert meta["stoi"] == {text: token for token, text in meta["itos"].items()}


def test_an_export_needs_only_the_parts_of_meta_json_that_describe_the_tokens(dataset, tmp_path):
    meta = json.loads((dataset / "meta.json").read_text())
    del meta["tokenizer_sha256"]
    (dataset / "meta.json").write_text(json.dumps(meta))
    export_dataset(dataset, tmp_path / "exported")
    assert (tmp_path / "exported/meta.pkl").exists()


def test_a_destination_that_cannot_be_a_directory_is_named(dataset, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"taken/below: .*name another"):
        export_dataset(dataset, tmp_path / "taken/below")
