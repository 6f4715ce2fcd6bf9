"""Models are found, loaded once, replaced whole, and evicted when nobody uses them."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nanogpt.config.schema import SampleSettings
from nanogpt.errors import UserError
from nanogpt.files.atomic import sha256_file
from nanogpt.model.directories import MODEL_FILES
from nanogpt.project import NGRAMS_FILE
from nanogpt.web import models as module
from nanogpt.web.generating import BusyError
from nanogpt.web.meters import Meters
from nanogpt.web.models import Models, UnavailableError, UnknownModelError
from nanogpt.web.site import Limits
from tests.made_runs import make_run, write_manifest
from tests.web.made_models import add_model, wait_until


@pytest.fixture
def models_of():
    """Return a function that makes the models of a site, with limits."""
    made = []

    def make(site, **limits):
        made.append(Models(dataclasses.replace(site, limits=Limits(**limits)), Meters()))
        return made[-1]

    yield make
    for models in made:
        models.close()


@pytest.fixture
def models(site, models_of):
    return models_of(site)


def acquire(models, name):
    return asyncio.run(models.acquire(name))


def manifest_of(site, name):
    """Write the manifest of a run's training, for the files that are there."""
    outputs = {
        f"results/{name}/model/{file}": sha256_file(site.results / name / "model" / file)
        for file in MODEL_FILES
    }
    write_manifest(site.results / name, "train", {}, {}, outputs)


def names(models):
    return [model.name for model in models.files.all()]


# --- Finding --------------------------------------------------------------------------------


def test_models_of_all_runs_are_listed(site, models):
    assert names(models) == []
    for name in ("b", "a", "2"):
        add_model(site, name)
    (site.results / "a/model/config.json").unlink()
    (site.results / "unfinished").mkdir()
    (site.results / ".hidden").mkdir()
    assert names(models) == ["2", "b"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "x\0", "-x", "x" * 300])
def test_a_name_that_isnt_a_runs_is_unknown(site, models, name):
    add_model(site, "x")
    with pytest.raises(UnknownModelError):
        acquire(models, name)


@pytest.mark.parametrize("part", ["out", "out/model", "out/model/config.json"])
def test_a_symbolic_link_out_of_the_results_isnt_followed(site, models, tmp_path, part):
    add_model(site, "out")
    place, target = site.results / part, tmp_path / "elsewhere"
    place.rename(target)
    place.symlink_to(target)
    assert names(models) == []
    with pytest.raises(UnknownModelError):
        acquire(models, "out")


@pytest.mark.parametrize("part", ["bad", "bad/model", "bad/model/ngrams.safetensors"])
def test_a_loop_of_links_hides_one_model(site, models, part):
    add_model(site, "good")
    add_model(site, "bad")
    place = site.results / part
    if place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(place.name)
    assert names(models) == ["good"]
    with pytest.raises(UnknownModelError):
        acquire(models, "bad")


@pytest.mark.parametrize("file", [*MODEL_FILES, NGRAMS_FILE])
def test_a_pipe_is_no_file_of_a_model(site, models, file):
    path = add_model(site, "one") / file
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert names(models) == []
    with pytest.raises(UnknownModelError):
        acquire(models, "one")


@pytest.mark.parametrize("stage", ["train", "combine", "sample"])
def test_a_manifest_that_is_a_pipe_isnt_waited_for(site, models, stage):
    add_model(site, "one")
    os.mkfifo(site.results / f"one/{stage}.manifest.json")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(acquire, models, "one")
        try:
            assert found.result(timeout=10).settings.max_new_tokens == 500
        finally:
            release_readers(site.results / f"one/{stage}.manifest.json")


def release_readers(pipe):
    """Let threads go on that wait for a writer of a pipe."""
    with contextlib.suppress(OSError):
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def test_settings_outside_the_results_arent_read(site, models, tmp_path):
    run = make_run(tmp_path / "elsewhere", "one", sampling={"start": "a secret"})
    add_model(site, "one")
    (site.results / "one/sample.manifest.json").symlink_to(run / "sample.manifest.json")
    assert models.files.settings("one").start != "a secret"
    (site.results / "one/sample.manifest.json").unlink()
    shutil.copy(run / "sample.manifest.json", site.results / "one")
    assert models.files.settings("one").start == "a secret"


def test_a_symbolic_link_within_the_results_is_followed(site, models):
    add_model(site, "one")
    (site.results / "two").symlink_to(site.results / "one")
    assert names(models) == ["one", "two"]
    assert acquire(models, "two").tokenizer == acquire(models, "one").tokenizer


def test_an_unknown_name_gets_the_nearest_one(site, models):
    add_model(site, "shakespeare")
    with pytest.raises(UnknownModelError) as caught:
        acquire(models, "shakespear")
    assert caught.value.nearest == "shakespeare"


# --- Loading --------------------------------------------------------------------------------


def test_concurrent_requests_share_one_load(site, models, monkeypatch):
    add_model(site, "x")
    loads, load = [], module.load_model
    monkeypatch.setattr(module, "load_model", lambda *a: loads.append(a) or load(*a))

    async def main():
        return await asyncio.gather(*(models.acquire("x") for _ in range(20)))

    found = asyncio.run(main())
    assert len(loads) == 1
    assert len({id(model) for model in found}) == 1
    assert found[0].n_users == 20


def test_a_request_that_ends_doesnt_end_the_load_of_others(site, models, monkeypatch):
    add_model(site, "x")
    go, load = threading.Event(), module.load_model
    monkeypatch.setattr(module, "load_model", lambda *a: go.wait(10) and load(*a))

    async def main():
        first, second = (asyncio.create_task(models.acquire("x")) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0.05)
        go.set()
        return await second

    assert asyncio.run(main()).n_users == 1


def test_a_damaged_model_is_an_error_until_its_repaired(site, models):
    directory = add_model(site, "x")
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:99])
    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            acquire(models, "x")
    (directory / "model.safetensors").write_bytes(content)
    assert acquire(models, "x").name == "x"


def test_the_settings_are_those_of_the_config_or_else_of_the_manifest(site, models):
    add_model(site, "x")
    assert models.files.settings("x").temperature == 0.8
    sampling = SampleSettings(temperature=0.5).model_dump()
    write_manifest(site.results / "x", "sample", {}, {"name": "x", "sample": sampling}, {})
    assert models.files.settings("x").temperature == 0.5
    site.project.config_file.write_text(
        "datasets: {d: {}}\ncorpora: {d: {builtin: playwright}}\n"
        "runs: {x: {dataset: d, sample: {temperature: 0.25}}}\n"
    )
    assert models.files.settings("x").temperature == 0.25
    site.project.config_file.write_text("runs: [")
    assert models.files.settings("x").temperature == 0.5


def test_a_damaged_model_is_read_once_in_a_while(site, models, monkeypatch):
    (add_model(site, "x") / "model.safetensors").write_bytes(b"x")
    loads, load = [], module.load_model
    monkeypatch.setattr(module, "load_model", lambda *a: loads.append(a) or load(*a))
    for _ in range(5):
        with pytest.raises(UserError, match="damaged"):
            acquire(models, "x")
    assert len(loads) == 1
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 1000)
    with pytest.raises(UserError, match="damaged"):
        acquire(models, "x")
    assert len(loads) == 2


# --- Replacement ----------------------------------------------------------------------------


def test_a_replaced_model_is_served_to_new_requests_while_the_old_one_ends(site, models):
    add_model(site, "x", seed=0)
    old = acquire(models, "x")
    assert acquire(models, "x") is old
    add_model(site, "x", seed=1)
    new = acquire(models, "x")
    assert new is not old
    assert acquire(models, "x") is new
    assert len(models.in_memory()) == 2
    assert not old.batcher.is_closed
    models.release(old)
    models.release(old)
    assert old.batcher.is_closed
    assert models.in_memory() == [new]


def test_files_of_two_versions_are_never_served_together(site, models, tmp_path):
    directory = add_model(site, "x", seed=0)
    manifest_of(site, "x")
    old = acquire(models, "x")
    models.release(old)
    shutil.copytree(site.results, tmp_path / "other")
    new = add_model(dataclasses.replace(site, results=tmp_path / "other"), "x", seed=1, n_layer=1)
    shutil.copy(new / "config.json", directory / "config.json")
    assert acquire(models, "x") is old  # the new weights aren't there yet
    shutil.copy(new / "model.safetensors", directory / "model.safetensors")
    assert acquire(models, "x") is old  # nor is their manifest
    manifest_of(site, "x")
    wait_until(lambda: acquire(models, "x") is not old)
    assert len(acquire(models, "x").engine.decoder.blocks) == 1


def test_files_that_dont_match_their_manifest_are_read_once_and_not_loaded(
    site, models, monkeypatch
):
    monkeypatch.setattr(module, "BETWEEN_ATTEMPTS", 0.001)
    checks, match = [], models.files.match_manifest
    monkeypatch.setattr(models.files, "match_manifest", lambda n: checks.append(n) or match(n))
    add_model(site, "x", seed=0)
    manifest_of(site, "x")
    add_model(site, "x", seed=1)
    for _ in range(3):
        with pytest.raises(UserError, match="`nanogpt verify results/x`"):
            acquire(models, "x")
    assert len(checks) == 1
    manifest_of(site, "x")
    assert acquire(models, "x").name == "x"


def test_a_model_that_is_replaced_during_its_load_is_loaded_again(site, models, monkeypatch):
    add_model(site, "x", seed=0)
    loads, load = [], module.load_model

    def replace_during_the_first(*arguments):
        loaded = load(*arguments)
        if not loads:
            add_model(site, "x", seed=1, n_layer=1)
        loads.append(loaded)
        return loaded

    monkeypatch.setattr(module, "load_model", replace_during_the_first)
    assert len(acquire(models, "x").engine.decoder.blocks) == 1
    assert len(loads) == 2


def test_a_model_whose_run_is_trained_again_is_served_until_its_replaced(site, models):
    directory = add_model(site, "x")
    old = acquire(models, "x")
    shutil.rmtree(directory)  # as Snakemake does before it starts the training
    assert acquire(models, "x") is old
    shutil.rmtree(site.results / "x")
    with pytest.raises(UnknownModelError):
        acquire(models, "x")


# --- Memory ---------------------------------------------------------------------------------


def size_of(site, name):
    return module.COPIES * Path(site.results / name / "model/model.safetensors").stat().st_size


def test_the_least_recently_used_model_is_evicted_but_none_in_use(site, models_of):
    for name in "abc":
        add_model(site, name)
    models = models_of(site, model_bytes=int(2.5 * size_of(site, "a")))
    a = acquire(models, "a")
    models.release(a)
    b = acquire(models, "b")
    models.release(b)
    models.release(acquire(models, "a"))
    c = acquire(models, "c")
    assert b.batcher.is_closed
    assert models.in_memory() == [a, c]
    assert acquire(models, "a") is a
    with pytest.raises(UnavailableError, match="no memory"):
        acquire(models, "b")
    models.release(c)
    assert acquire(models, "b") is not b
    assert c.batcher.is_closed
    assert not a.batcher.is_closed


def test_a_model_larger_than_the_budget_is_served_alone(site, models_of):
    add_model(site, "a")
    models = models_of(site, model_bytes=1)
    assert acquire(models, "a").name == "a"


def test_requests_whose_clients_are_slow_count_as_in_progress(site, models_of):
    add_model(site, "a")
    models = models_of(site, admitted=1, waiting=1)
    a = acquire(models, "a")
    acquire(models, "a")
    with pytest.raises(BusyError):
        acquire(models, "a")
    models.release(a)
    acquire(models, "a")


def test_a_model_whose_thread_has_ended_is_loaded_again(site, models):
    add_model(site, "a")
    a = acquire(models, "a")
    a.batcher.close()
    assert acquire(models, "a") is not a
