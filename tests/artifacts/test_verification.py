"""Verification reads a file again only if it may have changed."""

import os
from pathlib import Path

import pytest

from nanogpt.artifacts import manifests, verification
from nanogpt.artifacts.records.base import write_record
from nanogpt.artifacts.records.manifests import Manifest
from nanogpt.artifacts.verification import verify_files
from nanogpt.project import Project

INPUT, OUTPUT = "data/text.txt", "results/one/train.bin"
MANIFEST = "results/one/prepare.manifest.json"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a manifest. Files count as old, so that they're recorded at once."""
    monkeypatch.setattr(verification, "RECENT", -3600 * 10**9)
    project = Project(tmp_path)
    for file in (INPUT, OUTPUT):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(f"the contents of {file}")
    inputs = manifests.digests(project, [INPUT])
    manifest = Manifest(
        stage="prepare",
        version=manifests.version("prepare", {}, inputs, ""),
        inputs=inputs,
        parameters={},
        code="",
        outputs=manifests.digests(project, [OUTPUT]),
        environment=manifests.environment(1),
        wall_seconds=1.0,
    )
    write_record(tmp_path / MANIFEST, manifest)
    return project


def counts(project, read_all=False):
    """The numbers of files that are read, not read again, and wrong."""
    result = verify_files(project, [project.results], read_all)
    return result.n_read, result.n_unchanged, len(result.problems)


def test_unchanged_files_are_not_read_again(project):
    assert counts(project) == (2, 0, 0)
    assert counts(project) == (0, 2, 0)


def test_all_files_are_read_again_on_request(project):
    counts(project)
    assert counts(project, read_all=True) == (2, 0, 0)
    assert counts(project) == (0, 2, 0)


def test_an_edit_is_found(project):
    counts(project)
    (project.root / OUTPUT).write_text("changed")
    assert counts(project) == (1, 1, 1)


def test_an_edit_that_keeps_size_and_date_is_found(project):
    counts(project)
    path = project.root / OUTPUT
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(b"T")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert counts(project) == (1, 1, 1)


def test_a_replaced_file_is_found(project):
    counts(project)
    path = project.root / OUTPUT
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes().upper())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)
    assert counts(project) == (1, 1, 1)


def test_a_wrong_file_is_read_again_each_time(project):
    (project.root / OUTPUT).write_text("changed")
    assert counts(project) == (2, 0, 1)
    assert counts(project) == (1, 1, 1)


def test_a_missing_file_is_a_problem(project):
    counts(project)
    (project.root / OUTPUT).unlink()
    assert counts(project) == (0, 1, 1)


def test_a_file_that_just_changed_is_read_again(project, monkeypatch):
    monkeypatch.setattr(verification, "RECENT", 3600 * 10**9)
    assert counts(project) == (2, 0, 0)
    assert counts(project) == (2, 0, 0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"data/text.txt": [1]}'])
def test_a_damaged_record_is_ignored(project, content):
    counts(project)
    project.verified.write_text(content)
    assert counts(project) == (2, 0, 0)
    assert counts(project) == (0, 2, 0)


def test_the_record_keeps_files_that_were_not_part_of_this_check(project):
    counts(project)
    empty = project.root / "elsewhere"
    empty.mkdir()
    assert verify_files(project, [empty]).manifests == []
    assert counts(project) == (0, 2, 0)


def test_a_check_of_everything_forgets_other_files(project):
    counts(project)
    for file in project.results.glob("one/*"):
        file.unlink()
    verify_files(project, [project.results])
    assert "text.txt" in project.verified.read_text()
    project.resources.mkdir()
    verify_files(project, [project.results, project.resources])
    assert project.verified.read_text() == "{}"


def test_a_project_that_cannot_be_written_is_still_verified(project):
    (project.root / ".nanogpt").write_text("not a directory")
    assert counts(project) == (2, 0, 0)


def test_an_interrupted_check_keeps_what_it_read(project, monkeypatch):
    def interrupt(path):
        if Path(path).name == "train.bin":
            raise KeyboardInterrupt
        return "0" * 64 if Path(path).name != "text.txt" else digest

    digest = manifests.digests(project, [INPUT])[INPUT]
    monkeypatch.setattr(verification, "sha256_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        counts(project)
    monkeypatch.undo()
    monkeypatch.setattr(verification, "RECENT", -3600 * 10**9)
    assert counts(project) == (1, 1, 0)
