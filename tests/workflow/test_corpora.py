"""Corpora with published results are planned, and prepared from small files of the same format."""

import io
import shutil
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from nanogpt.config.loading import read
from nanogpt.data.batches import load
from tests.checkouts import MIRROR, PROJECT
from tests.workflow.projects import make, planned

STORIES = [f"Once upon a time there was a cat called {n}. It liked milk.\n" for n in range(300)]
LINES = ["", " = An Article = \n", "", " It has @-@ signs , and more .\n", " Another line .\n"] * 60
XML = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.3/">\n<page>Zürich</page>\n' * 200
NOVEL = "\ufeff" + "En un lugar de la Mancha, de cuyo nombre no quiero acordarme.\r\n" * 200

NAMES = ["text8", "enwik8", "tinystories", "wikitext_103", "fineweb_edu", "quijote"]


def zipped(name: str, text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return file.getvalue()


def parquet_of(rows: list[str]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": range(len(rows)), "text": rows}), file)
    return file.getvalue()


def content_of(corpus: str, number: int) -> bytes:
    """Return a small file in the format of the corpus's file with this number."""
    if corpus == "text8":
        return zipped("text8", " anarchism originated as a term of abuse" * 300)
    if corpus == "enwik8":
        return zipped("enwik8", XML)
    if corpus == "quijote":
        return NOVEL.encode()
    if corpus == "wikitext_103":
        return parquet_of(LINES if number < 2 else LINES[:5] * 6)
    return parquet_of([f"{number}: {story}" for story in STORIES])


@pytest.fixture(scope="module")
def prepared(empty_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the shipped config.yaml, in which each of the corpora has been prepared."""
    directory = tmp_path_factory.mktemp("corpora")
    project = directory / "checkout"
    shutil.copytree(empty_project, project)
    shipped = read(PROJECT / "config.yaml")
    config = yaml.safe_load((PROJECT / "config.yaml").read_text())
    for name in NAMES:
        # The small files are shorter and have other digests.
        config["corpora"][name].pop("sha256", None)
        if "train_bytes" in config["datasets"][name]:
            config["datasets"][name].update(train_bytes=9000, val_bytes=500)
        for number, url in enumerate(shipped.corpora[name].urls):
            parts = urlsplit(url)
            file = directory / "mirror" / parts.netloc / unquote(parts.path).lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content_of(name, number))
    config["datasets"]["fineweb_edu"]["val_ratio"] = 0.1
    if MIRROR:
        host = "openaipublic.blob.core.windows.net"
        (directory / "mirror" / host).symlink_to(Path(MIRROR) / host)
    else:
        config["datasets"]["fineweb_edu"]["tokenizer"] = "byte"
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    targets = [f"results/datasets/{name}/meta.json" for name in NAMES]
    make(project, *targets, NANOGPT_MIRROR=str(directory / "mirror"))
    return project


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_is_planned_up_to_its_evaluation(empty_project: Path, name: str) -> None:
    config = PROJECT / "config.yaml"
    jobs = planned(empty_project, "--configfile", str(config), "--", f"results/{name}/eval.json")
    n_files = len(read(config).corpora[name].urls)
    assert jobs["download"] == n_files
    assert {rule: jobs[rule] for rule in ("prepare", "train", "eval")} == {
        "prepare": 1,
        "train": 1,
        "eval": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text8", "enwik8"])
def test_text_after_the_validation_split_is_in_neither_split(prepared: Path, name: str) -> None:
    meta = load(prepared / f"results/datasets/{name}").meta
    assert (meta.train.n_bytes, meta.val.n_bytes) == (9000, 500)
    assert meta.files[0].n_bytes > 9500


@pytest.mark.slow
def test_text8_has_letters_only_and_enwik8_is_bytes(prepared: Path) -> None:
    assert load(prepared / "results/datasets/text8").tokenizer.vocab_size < 28
    assert load(prepared / "results/datasets/enwik8").tokenizer.vocab_size == 256


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_train"), [("tinystories", 1200), ("wikitext_103", 2)])
def test_the_last_file_is_the_validation_split(prepared: Path, name: str, n_train: int) -> None:
    files = load(prepared / f"results/datasets/{name}")
    n_val = files.meta.files[-1].n_documents
    assert (files.meta.train.n_documents, files.meta.val.n_documents) == (n_train, n_val)
    assert files.meta.val.n_bytes == files.meta.files[-1].n_bytes


@pytest.mark.slow
def test_the_lines_of_wikitext_are_one_text(prepared: Path) -> None:
    files = load(prepared / "results/datasets/wikitext_103")
    text = files.tokenizer.decode(files.val)
    assert text.startswith(" = An Article = \n It has @-@ signs , and more .\n Another line .\n")
    assert text.count("<|endoftext|>") == 1


@pytest.mark.slow
def test_pages_are_documents_and_split_by_hash(prepared: Path) -> None:
    meta = load(prepared / "results/datasets/fineweb_edu").meta
    assert meta.split == "document"
    assert meta.train.n_documents + meta.val.n_documents == 14 * len(STORIES)


@pytest.mark.slow
def test_the_novel_has_no_byte_order_mark_and_no_windows_line_ends(prepared: Path) -> None:
    files = load(prepared / "results/datasets/quijote")
    assert not set("\ufeff\r") & set(files.tokenizer.decode(range(files.tokenizer.vocab_size)))
