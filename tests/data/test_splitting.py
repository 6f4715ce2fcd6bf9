"""A split that gets too little text is an error that names the setting which splits."""

import pytest

from nanogpt.errors import UserError
from tests.data.prepared import prepare_by_groups, prepare_files, write_rows, write_texts

TEXT = "Some text. " * 20


def test_a_last_file_that_is_too_short_is_an_error_about_files(tmp_path):
    paths = write_texts(tmp_path / "texts", [TEXT, "a"])
    message = (
        r"characters in total, too few for `split: last_file`: the val split would get 1 "
        r"token; add text, or change the dataset's `split:`"
    )
    options = {"tokenizer": "byte", "split": "last_file", "separator": ""}
    with pytest.raises(UserError, match=message):
        prepare_files(paths, tmp_path / "made", **options)


@pytest.mark.parametrize("by_groups", [False, True])
def test_many_documents_of_which_none_is_held_out_are_an_error_about_documents(tmp_path, by_groups):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        write_rows(path, [f"{path.name} {number}" for number in range(60)])
    message = r"120 documents in total: none for the val split; add documents, or set"
    prepare, given = (
        (prepare_by_groups, [paths[:1], paths[1:]]) if by_groups else (prepare_files, paths)
    )
    with pytest.raises(UserError, match=message):
        prepare(given, tmp_path / "made", val_ratio=1e-9)


def test_a_split_by_bytes_that_leaves_one_token_is_an_error_about_bytes(tmp_path):
    paths = write_texts(tmp_path / "texts", [TEXT])
    message = r"the train split would get 1 token; .* `train_bytes:` and `val_bytes:`"
    with pytest.raises(UserError, match=message):
        prepare_files(paths, tmp_path / "made", train_bytes=1)
