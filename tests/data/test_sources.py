"""The files of a corpus are found."""

import os
import re
from pathlib import Path

import pytest

from nanogpt.config.corpora import Corpus
from nanogpt.data.sources import find_files, in_words, passed_over
from nanogpt.errors import UserError
from nanogpt.project import Project
from tests.data.reading import complaint, write

# Finding files


def found(*files, name="mine"):
    return [path.as_posix() for path in find_files(name, Corpus(files=list(files)))]


def not_found(*files):
    with pytest.raises(UserError) as error:
        find_files("mine", Corpus(files=list(files)))
    message = str(error.value)
    assert message.startswith("corpora.mine.files: ")
    assert "\n" not in message
    return message


@pytest.fixture
def library(project):
    """A project with some texts and some other files."""
    for name in (
        "texts/b.txt",
        "texts/a.txt",
        "texts/c.jsonl",
        "texts/sub/deep/d.parquet",
        "texts/sub/e.csv",
        "texts/sub/f.txt.gz",
        "texts/sub/g.jsonl.zst",
        "texts/sub/h.txt.xz",
        "texts/README.rst",
        "texts/picture.png",
        "texts/.hidden.txt",
        "texts/.cache/i.txt",
        "texts/sub/.j/k.txt",
        "other/l.log",
        "other/m.txt",
    ):
        write(project / name, "x")
    return project


def test_a_single_file_can_have_any_name(library):
    assert found("texts/b.txt") == ["texts/b.txt"]
    assert found("texts/README.rst") == ["texts/README.rst"]
    assert found("texts/.hidden.txt") == ["texts/.hidden.txt"]
    assert found(str(library / "other/l.log")) == [(library / "other/l.log").as_posix()]
    assert [str(p) for p in find_files("n", Corpus(files="other/m.txt"))] == ["other/m.txt"]


@pytest.mark.usefixtures("library")
def test_files_keep_the_order_in_which_they_are_listed():
    assert found("texts/b.txt", "other/m.txt", "texts/a.txt") == [
        "texts/b.txt",
        "other/m.txt",
        "texts/a.txt",
    ]


def test_a_directorys_texts_are_found_recursively_sorted_and_without_hidden_ones(library):
    wanted = [
        "texts/a.txt",
        "texts/b.txt",
        "texts/c.jsonl",
        "texts/sub/deep/d.parquet",
        "texts/sub/e.csv",
        "texts/sub/f.txt.gz",
        "texts/sub/g.jsonl.zst",
        "texts/sub/h.txt.xz",
    ]
    assert found("texts") == found("texts/") == found("./texts") == wanted
    assert found(str(library / "texts")) == [(library / name).as_posix() for name in wanted]


@pytest.mark.usefixtures("library")
def test_a_hidden_directory_is_read_if_named():
    assert found("texts/.cache") == ["texts/.cache/i.txt"]
    assert found("texts/sub/.j/") == ["texts/sub/.j/k.txt"]


@pytest.mark.usefixtures("library")
def test_a_pattern_finds_matching_files_sorted():
    assert found("texts/[ab].txt") == ["texts/a.txt", "texts/b.txt"]
    assert found("*/?.log") == ["other/l.log"]
    assert found("texts/**/*.gz") == ["texts/sub/f.txt.gz"]
    assert found("**/[b-m].txt") == ["other/m.txt", "texts/b.txt"]
    assert found("texts/*.rst", "texts/*.jsonl") == ["texts/README.rst", "texts/c.jsonl"]


def test_a_pattern_finds_no_directories(library):
    (library / "texts/z.txt").mkdir()
    assert found("texts/[az].txt") == ["texts/a.txt"]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("entry", ["texts/**.txt", "**b.txt", "texts/***/b.txt"])
def test_two_stars_next_to_other_letters_are_one_star_or_a_one_line_error(entry):
    files, message = [], ""
    try:
        files = found(entry)
    except UserError as error:
        message = str(error)
    assert files[-1:] == ["texts/b.txt"] or entry in message


@pytest.mark.usefixtures("library")
def test_a_file_found_several_times_is_read_once():
    assert found("texts/b.txt", "texts", "texts/*.txt", "./texts/b.txt")[:2] == [
        "texts/b.txt",
        "texts/a.txt",
    ]
    again = found("texts", "texts", "texts/**/*.csv", "texts/a.txt")
    assert again == found("texts")


def test_a_name_with_special_characters_is_literal_if_the_file_exists(
    project,
):
    names = ["a[1].txt", "b c  d.txt", "größe 文.txt", "e*.txt", "[x]/f.txt", "100%.txt", "#g.txt"]
    for name in names:
        write(project / name, "x")
    write(project / "a1.txt", "x")
    write(project / "ee.txt", "x")
    assert [found(name) for name in names] == [[name] for name in names]
    assert found("[x]") == ["[x]/f.txt"]
    assert found(str(project / "a[1].txt")) == [(project / "a[1].txt").as_posix()]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("absent.txt", "absent.txt: no such file"),
        ("absent/", "absent/: no such file"),
        ("texts/*.pdf", "texts/*.pdf: no file matches this pattern"),
        ("texts/[", "texts/[: no file matches this pattern"),
        ("x" * 5000, "File name too long"),
        ("a\0b.txt", "no such file"),
    ],
)
def test_an_entry_without_files_is_an_error_with_the_corpus(entry, message):
    assert message in not_found("texts/a.txt", entry)


def test_a_directory_without_texts_is_an_error_with_the_accepted_suffixes(project):
    write(project / "texts/a.pdf", "x")
    write(project / "texts/.b.txt", "x")
    (project / "texts/c.txt").mkdir()
    message = not_found("texts")
    assert "texts: this directory has no .txt" in message
    for suffix in (".txt", ".jsonl", ".ndjson", ".parquet", ".csv"):
        assert suffix in message


def test_a_texts_suffix_can_be_in_capitals(project):
    write(project / "texts/a.txt", "x")
    write(project / "texts/B.TXT", "x")
    assert sorted(found("texts")) == ["texts/B.TXT", "texts/a.txt"]


@pytest.mark.usefixtures("library")
def test_a_pattern_finds_hidden_files_only_if_it_asks_for_them():
    assert found("texts/*.txt") == ["texts/a.txt", "texts/b.txt"]
    assert found("texts/.*.txt") == ["texts/.hidden.txt"]
    assert found("texts/.cache/*") == ["texts/.cache/i.txt"]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("entry", ["/*.txt", "/**/*.txt", "../*.txt", "texts/../../*/*.txt"])
def test_a_pattern_that_leaves_the_project_is_rejected(entry):
    message = not_found(entry)
    assert f"{entry}: this pattern leaves the project" in message
    assert "name a directory instead" in message


def test_directories_and_files_can_be_outside_the_project(library, monkeypatch):
    monkeypatch.chdir(library / "texts")
    assert found("../other") == ["../other/m.txt"]
    assert found("../other/l.log") == ["../other/l.log"]


def test_links_to_files_and_to_a_named_directory_are_followed(library):
    (library / "link.txt").symlink_to("other/m.txt")
    (library / "linked").symlink_to("other")
    assert found("link.txt") == ["link.txt"]
    assert found("linked") == ["linked/m.txt"]
    assert found("linked/*.txt") == ["linked/m.txt"]
    (library / "other/n.txt").symlink_to("../texts/a.txt")
    assert found("other") == ["other/m.txt", "other/n.txt"]


def test_links_within_a_directory_are_followed(library):
    (library / "other/linked").symlink_to("../texts/sub")
    assert [path for path in found("other") if "linked" in path]


def test_circular_links_are_not_followed_forever(library):
    (library / "other/self").symlink_to(".")
    assert found("other") == ["other/m.txt"]
    (library / "other/loop.txt").symlink_to("loop.txt")
    assert found("other") == ["other/m.txt"]
    assert "other/loop.txt: a broken link" in not_found("other/loop.txt")


def test_a_broken_link_is_an_error(library):
    (library / "other/gone.txt").symlink_to("absent.txt")
    assert "other/gone.txt: a broken link; fix it" in not_found("other/gone.txt")
    assert found("other") == ["other/m.txt"]


def test_an_unreadable_file_is_an_error_when_it_is_read(library, request):
    (library / "other/m.txt").chmod(0)
    request.getfixturevalue("plain_user")
    assert found("other") == ["other/m.txt"]
    assert "no permission" in complaint(Path("other/m.txt"))


def test_an_unreadable_directory_is_an_error(library, request):
    (library / "other").chmod(0)
    request.getfixturevalue("plain_user")
    try:
        for entry in ("other", "other/m.txt"):
            assert "ermission denied" in not_found(entry)
    finally:
        os.seteuid(os.getuid())
        (library / "other").chmod(0o755)


def test_an_unreadable_subdirectory_is_an_error_and_not_skipped(library, request):
    (library / "texts/sub").chmod(0)
    request.getfixturevalue("plain_user")
    try:
        assert "texts/sub" in not_found("texts")
    finally:
        os.seteuid(os.getuid())
        (library / "texts/sub").chmod(0o755)


def test_downloads_and_built_in_texts_do_not_have_to_exist_yet(project):
    url = "https://example.org/texts/part-[08-10].jsonl"
    assert [str(path) for path in find_files("mine", Corpus(url=url))] == [
        f"resources/corpora/mine/part-{number}.jsonl" for number in ("08", "09", "10")
    ]
    [play] = find_files("play", Corpus(builtin="play"))
    assert str(play) == "resources/corpora/play/input.txt"
    assert not list(project.iterdir())


# Skipped files


def test_a_directorys_other_files_are_counted_by_kind(library):
    for name in ("a.html", "b.HTML", "LICENSE", ".hidden.html", "c.tar.gz"):
        write(library / "more" / name, "x")
    write(library / "more/d.txt", "text")
    (library / "more/e.txt").symlink_to("absent.txt")
    os.mkfifo(library / "more/f.txt")
    corpus = Corpus(files=["more", "more/LICENSE"])
    assert list(map(str, find_files("mine", corpus))) == ["more/d.txt", "more/LICENSE"]
    kinds = passed_over(corpus)
    assert kinds == {
        ".gz": 1,
        ".html": 2,
        "links to nothing": 1,
        "others": 1,
        "pipes and devices": 1,
    }
    assert in_words(kinds).startswith("2 .html, 1 .gz, ")
    assert passed_over(Corpus(builtin="play")) == {}


def test_only_a_plausible_suffix_counts_as_a_kind(library):
    for name in (b"Dr. M\xfcller", "v1.2 of it", "a.Ünicode", "b.LOG"):
        write(library / "more" / os.fsdecode(name), "x")
    assert passed_over(Corpus(files=["more"])) == {".log": 1, "others": 3}


def test_the_first_by_name_of_two_links_to_a_directory_is_followed(library):
    (library / "other/z").mkdir()
    write(library / "other/z/1.txt", "x")
    (library / "other/a1").symlink_to("z")
    assert found("other") == ["other/a1/1.txt", "other/m.txt"]


def test_a_long_list_of_kinds_is_shortened():
    kinds = {f".{letter}": 1 for letter in "abcdefgh"}
    assert in_words(kinds) == "1 .a, 1 .b, 1 .c, 1 .d, 1 .e and 3 other files"


@pytest.mark.usefixtures("library")
def test_an_error_about_a_directory_without_texts_lists_its_files(library):
    for number in range(99):
        write(library / f"pages/{number}.html", "x")
    assert "(found 99 .html); put texts there" in not_found("pages")


def test_markdown_and_tsv_are_texts_of_a_directory(library):
    for name in ("a.md", "b.tsv", "c.jsonl.bz2", "d.txt.zstd"):
        write(library / "kinds" / name, "x")
    assert found("kinds") == [f"kinds/{n}" for n in ("a.md", "b.tsv", "c.jsonl.bz2", "d.txt.zstd")]


def test_a_named_pipe_is_rejected_without_waiting(library):
    os.mkfifo(library / "pipe.txt")
    assert "pipe.txt: a pipe or a device, which can't be read twice" in not_found("pipe.txt")
    assert "/dev/null: a pipe or a device" in not_found("/dev/null")


def test_a_name_that_is_not_utf_8_is_an_error_with_a_remedy(library):
    name = os.fsdecode(b"caf\xe9.txt")
    write(library / "old" / name, "x")
    for entry in ("old", "old/*.txt"):
        message = not_found(entry)
        assert r"old/caf\udce9.txt: its name isn't UTF-8" in message
        assert "rename it" in message


@pytest.mark.usefixtures("library")
def test_a_url_under_files_is_an_error():
    message = not_found("https://example.org/book.txt")
    assert "https://example.org/book.txt: a URL, not a file; put it under `url:`" in message


@pytest.mark.usefixtures("library")
def test_a_sha256_is_only_for_named_files():
    with pytest.raises(UserError, match="texts: not a file, so `sha256:` can't check it"):
        find_files("mine", Corpus(files=["texts"], sha256="0" * 64))


# Other projects


def test_files_of_another_project_are_relative_to_its_root(library, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for corpus in (
        Corpus(files=["texts/b.txt", "other", "texts/**/*.csv", "texts/[ab].txt"]),
        Corpus(url="https://example.org/book.txt"),
        Corpus(builtin="play"),
    ):
        elsewhere = find_files("mine", corpus, Project(library))
        monkeypatch.chdir(library)
        assert elsewhere == [library / path for path in find_files("mine", corpus)]
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def test_another_projects_path_can_have_brackets_and_stars(tmp_path):
    root = tmp_path / "a [draft] *"
    write(root / "texts/a.txt", "x")
    for entry in ("texts/*.txt", "texts", "texts/a.txt"):
        assert find_files("mine", Corpus(files=entry), Project(root)) == [root / "texts/a.txt"]


def test_an_absolute_path_is_the_same_file_in_every_project(library, tmp_path):
    text = library / "texts/a.txt"
    assert find_files("mine", Corpus(files=str(text)), Project(tmp_path / "empty")) == [text]


@pytest.mark.usefixtures("library")
def test_files_missing_from_another_project_are_named_as_in_its_config(tmp_path):
    write(tmp_path / "empty/README.md", "x")
    for entry, message in (
        ("texts/a.txt", "texts/a.txt: no such file"),
        ("texts/*.txt", "texts/*.txt: no file matches this pattern"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            find_files("mine", Corpus(files=entry), Project(tmp_path / "empty"))
