"""Corpora that are downloaded: from a mirror, by hand, or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.checkouts import MIRROR, PROJECT
from tests.workflow.projects import edit_config, error_of, make, planned, snakemake

needs_mirror = pytest.mark.skipif(not MIRROR, reason="NANOGPT_MIRROR is not set")


@pytest.mark.mirror
@needs_mirror
def test_adding_a_downloads_sha256_reruns_nothing(project: Path) -> None:
    shipped = yaml.safe_load((PROJECT / "config.yaml").read_text())["corpora"]["shakespeare"]
    digest = shipped.pop("sha256")
    edit_config(project, lambda c: c["corpora"].update(shakespeare=shipped))
    edit_config(project, lambda c: c["datasets"].update(shakespeare={}))
    target = "results/datasets/shakespeare/meta.json"
    make(project, target, NANOGPT_MIRROR=str(MIRROR))
    log = project / "resources/corpora/shakespeare/input.txt.download.log"
    assert f"sha256: {digest}" in log.read_text()
    edit_config(project, lambda c: c["corpora"]["shakespeare"].update(sha256=digest))
    edit_config(project, lambda c: c.update(mirrors=["/somewhere"]))
    assert planned(project, target) == {}
    manifest = project / "resources/corpora/shakespeare/input.txt.download.manifest.json"
    whole = manifest.read_bytes()
    for damaged in (b"", b"[]", b'{"outputs": []}', b"\xff"):
        manifest.write_bytes(damaged)
        assert planned(project, target)["download"] == 1, "no record, so no digest to compare"
    manifest.write_bytes(whole)
    edit_config(project, lambda c: c["corpora"]["shakespeare"].update(sha256="0" * 64))
    assert planned(project, target) == {"download": 1, "prepare": 1}


@pytest.mark.slow
@pytest.mark.mirror
@needs_mirror
@pytest.mark.parametrize(
    ("dataset", "vocab_size", "train", "val"),
    [("shakespeare_char", 65, 1_003_854, 111_540), ("shakespeare", 50_257, 301_966, 36_059)],
)
def test_tiny_shakespeare_has_as_many_tokens_as_in_nanogpt(
    project: Path, dataset: str, vocab_size: int, train: int, val: int
) -> None:
    shutil.copy(PROJECT / "config.yaml", project)
    target = f"results/datasets/{dataset}/meta.json"
    make(project, target, NANOGPT_MIRROR=str(MIRROR))
    meta = json.loads((project / target).read_text())
    assert meta["vocab_size"] == vocab_size
    assert (meta["train"]["n_tokens"], meta["val"]["n_tokens"]) == (train, val)
    assert planned(project, target) == {}


@pytest.mark.mirror
@needs_mirror
def test_a_download_works_along_with_a_run_on_the_users_text(project: Path) -> None:
    (project / "resources/texts").mkdir(parents=True, exist_ok=True)
    (project / "resources/texts/mybook.txt").write_text("A book of mine. " * 200)
    shipped = yaml.safe_load((PROJECT / "config.yaml").read_text())["corpora"]["shakespeare"]
    edit_config(project, lambda c: c["corpora"].update(shakespeare=shipped))
    edit_config(project, lambda c: c["datasets"].update(shakespeare={}))
    edit_config(project, lambda c: c["runs"].update(longer={"dataset": "mybook"}))
    make(project, "resources/corpora/shakespeare/input.txt", NANOGPT_MIRROR=str(MIRROR))


def test_a_corpus_added_by_hand_must_match_its_sha256(project: Path) -> None:
    url = {"url": "http://127.0.0.1:9/corpus.txt", "sha256": "0" * 64}
    edit_config(project, lambda c: c["corpora"].update(gone=url))
    edit_config(project, lambda c: c["datasets"].update(gone={}))
    by_hand = project / "resources/corpora/gone/corpus.txt"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text("not what was promised")
    assert "0" * 64 in error_of(snakemake(project, "results/gone/samples.txt"))
