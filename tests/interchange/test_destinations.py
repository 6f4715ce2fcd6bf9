"""A directory is written completely or not at all, and only replaces an earlier one of its kind."""

import pytest

from nanogpt.errors import UserError
from nanogpt.interchange.destinations import EXPORT_MARK, IMPORT_MARK, Mark, whole_directory

MARK = Mark(kind="nanogpt", source="demo")


def write(destination, *names, mark_name=EXPORT_MARK):
    with whole_directory(destination, mark_name, MARK) as made:
        for name in names:
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(name)


def names(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def test_a_later_export_replaces_an_earlier_one_completely(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "a", "below/b")
    write(tmp_path / "out", "c")
    assert names(tmp_path) == ["out/c", "out/export.json"]


def test_an_error_keeps_the_old_directory_and_leaves_no_temporary_files(tmp_path):
    write(tmp_path / "out", "a")
    for name in ("out", "new"):
        with pytest.raises(TypeError):
            write(tmp_path / name, "b", 5)  # fails when one file is written
    assert names(tmp_path) == ["out/a", "out/export.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("other", ["notes.txt", "below/notes.txt", "empty/"])
def test_a_directory_with_anything_else_is_left_alone(other, tmp_path):
    write(tmp_path / "out", "a")
    path = tmp_path / "out" / other
    if other.endswith("/"):
        path.mkdir()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    with pytest.raises(UserError, match=r"not empty, and `.*` isn't from an earlier export"):
        write(tmp_path / "out", "a")
    assert path.exists()


def test_an_import_does_not_replace_an_export_or_a_trained_model(tmp_path):
    write(tmp_path / "out", "a")
    with pytest.raises(UserError, match="isn't from an earlier import"):
        write(tmp_path / "out", "a", mark_name=IMPORT_MARK)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").write_text("trained")
    with pytest.raises(UserError, match=r"`model\.safetensors` isn't from an earlier import"):
        write(tmp_path / "model", "a", mark_name=IMPORT_MARK)


def test_a_file_instead_of_a_directory_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken: a file, not a directory"):
        write(tmp_path / "taken", "a")
    with pytest.raises(UserError, match="below: can't be created"):
        write(tmp_path / "taken/below", "a")


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "a")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["a", "export.json"]
