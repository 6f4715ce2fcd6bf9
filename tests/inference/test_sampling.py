"""Samples: a text file for people, records for programs, and a stream for a terminal."""

import json
import re

import pytest
import torch

from nanogpt.config.parameters import as_parameters
from nanogpt.errors import UserError
from nanogpt.inference.engine import Engine, continuations
from nanogpt.inference.sampling import sample, stream
from nanogpt.model.checkpoints import load_model
from nanogpt.model.directories import save_model
from tests.inference.models import (
    BASE,
    TOKENIZER,
    VOCAB,
    make_model,
    make_ngrams,
    prompts_of,
    with_settings,
)

# --- Prompts --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    model = make_model()
    path = tmp_path_factory.mktemp("sampled") / "model"
    save_model(path, model.state_dict(), model.settings, TOKENIZER)
    return path


@pytest.fixture
def checkpoint(directory):
    return load_model(directory)


def test_without_a_prompt_a_sample_starts_like_a_text(tmp_path):
    model = make_model()
    start = TOKENIZER.encode("日").tolist()
    save_model(tmp_path / "model", model.state_dict(), model.settings, TOKENIZER, start)
    text = write_samples(tmp_path / "model", tmp_path / "samples.txt", start="")
    head, samples = split_samples(text)
    assert "# start: '日'" in head
    assert all(sample.startswith("日") for sample in samples)
    streamed = "".join(stream(load_model(tmp_path / "model"), with_settings(start="")))
    assert streamed.startswith("日")


def test_a_start_token_outside_the_vocabulary_is_refused(tmp_path):
    model = make_model()
    save_model(tmp_path / "model", model.state_dict(), model.settings, TOKENIZER, [VOCAB])
    with pytest.raises(UserError, match=r"config\.json: `start` has a token outside"):
        load_model(tmp_path / "model")


# --- samples.txt and the stream -------------------------------------------------------------


def write_samples(directory, path, **changes):
    sample("fable", directory, with_settings(**changes), path)
    return path.read_text(encoding="utf-8")


def split_samples(text):
    """Return the text below each heading, without its final line feed."""
    parts = re.split(r"\n--- sample (\d+) of (\d+) -+\n", text)
    assert parts[1::3] == [str(n + 1) for n in range(len(parts) // 3)]
    assert set(parts[2::3]) == {str(len(parts) // 3)}
    bodies = parts[3::3]
    assert all(body.endswith("\n") for body in bodies)
    return parts[0], [body[:-1] for body in bodies]


def test_samples_start_with_the_run_and_its_settings(directory, tmp_path):
    text = write_samples(directory, tmp_path / "samples.txt", num_samples=2, start="a\nb")
    head, _ = split_samples(text)
    lines = head.splitlines()
    assert lines[0] == "# 2 samples of fable"
    settings = as_parameters(with_settings(num_samples=2, start="a\nb"))
    assert lines[1:] == [f"# {name}: {value!r}" for name, value in settings.items()]
    assert "# start: 'a\\nb'" in lines
    assert "# temperature: 1.0" in lines


def test_samples_are_the_prompt_and_the_drawn_tokens(directory, checkpoint, tmp_path):
    text = write_samples(directory, tmp_path / "samples.txt", num_samples=3, max_new_tokens=40)
    _, samples = split_samples(text)
    prompts = prompts_of([TOKENIZER.encode("once").tolist()] * 3, with_settings(max_new_tokens=40))
    drawn = continuations(Engine(checkpoint.model, BASE), prompts)
    assert samples == ["once" + TOKENIZER.decode(row) for row in drawn]
    assert len(set(samples)) == 3
    assert all(len(one) == 4 + 40 for one in samples)


def test_the_same_settings_give_the_same_bytes(directory, tmp_path):
    for name in ("first.txt", "second.txt"):
        torch.rand(3)
        write_samples(directory, tmp_path / name, num_samples=3)
    assert (tmp_path / "first.txt").read_bytes() == (tmp_path / "second.txt").read_bytes()
    other = write_samples(directory, tmp_path / "other.txt", num_samples=3, seed=1)
    assert split_samples(other)[1] != split_samples((tmp_path / "first.txt").read_text())[1]


def test_a_failed_sampling_leaves_no_file(directory, tmp_path):
    with pytest.raises(UserError):
        write_samples(directory, tmp_path / "samples.txt", start="Z")
    assert not (tmp_path / "samples.txt").exists()


def test_a_stream_has_the_same_samples_as_the_file(directory, checkpoint, tmp_path):
    changes = {"num_samples": 3, "max_new_tokens": 30}
    page = write_samples(directory, tmp_path / "samples.txt", **changes)
    streamed = "".join(stream(checkpoint, with_settings(**changes)))
    assert streamed.startswith("--- sample 1 of 3 ---")
    assert page.endswith(f"\n\n{streamed}")


def test_a_stream_of_several_samples_uses_consecutive_seeds(checkpoint):
    together = "".join(stream(checkpoint, with_settings(num_samples=3)))
    alone = ["".join(stream(checkpoint, with_settings(seed=seed))) for seed in (1337, 1338, 1339)]
    assert [f"{one}\n" for one in split_samples(f"\n\n{together}")[1]] == alone
    assert len(set(alone)) == 3


def test_a_stream_of_one_sample_has_no_heading(checkpoint):
    assert "".join(stream(checkpoint, with_settings(num_samples=1))).startswith(BASE.start)
    assert "--- sample" not in "".join(stream(checkpoint, with_settings(num_samples=1)))


def test_drafted_samples_are_the_same_in_the_file_and_in_the_stream(
    directory, checkpoint, tmp_path
):
    settings = with_settings(num_samples=3, max_new_tokens=30, draft=4)
    path, ngrams = tmp_path / "samples.txt", make_ngrams(0.5)
    sample("fable", directory, settings, path, ngrams)
    head, samples = split_samples(path.read_text(encoding="utf-8"))
    assert "# draft: 4" in head
    assert [len(one) for one in samples] == [4 + 30] * 3
    streamed = "".join(stream(checkpoint, settings, ngrams))
    assert split_samples(f"\n\n{streamed}")[1] == samples


def test_a_stream_comes_token_by_token(checkpoint):
    pieces = stream(checkpoint, BASE)
    assert next(pieces) == "once"
    assert [len(piece) for piece in pieces] == [1] * 12 + [1]


def test_each_line_of_a_prompt_file_gets_its_samples(directory, tmp_path):
    (tmp_path / "prompts.txt").write_text("once\nthere was\n")
    start = f"LINES:{tmp_path / 'prompts.txt'}"
    text = write_samples(directory, tmp_path / "samples.txt", start=start, num_samples=2)
    head, samples = split_samples(text)
    assert head.startswith("# 4 samples of fable\n")
    starts = ["once", "once", "there was", "there was"]
    assert all(map(str.startswith, samples, starts))
    assert len(set(samples)) == 4


def test_one_sample_is_singular(directory, tmp_path):
    text = write_samples(directory, tmp_path / "samples.txt", num_samples=1)
    assert text.startswith("# 1 sample of fable\n")


# --- samples.jsonl --------------------------------------------------------------------------


def read_records(path):
    return [json.loads(line) for line in path.with_suffix(".jsonl").read_text("utf-8").splitlines()]


@torch.no_grad()
def test_records_have_all_fields(directory, checkpoint, tmp_path):
    path = tmp_path / "samples.txt"
    changes = {"num_samples": 3, "max_new_tokens": 10, "temperature": 0.7, "top_k": 5}
    _, samples = split_samples(write_samples(directory, path, **changes))
    records = read_records(path)
    assert [one["prompt"] + one["text"] for one in records] == samples
    assert [one["seed"] for one in records] == [1337, 1338, 1339]
    for one in records:
        assert (one["run"], one["finish"], len(one["tokens"])) == ("fable", "length", 10)
        assert TOKENIZER.decode(one["tokens"]) == one["text"]
        settings = with_settings(**changes, seed=one["seed"])
        assert one["settings"] == as_parameters(settings)
        tokens = torch.tensor([[*TOKENIZER.encode("once").tolist(), *one["tokens"]]])
        scores = torch.log_softmax(checkpoint.model(tokens[:, :-1]), -1)[0, 3:]
        mean = scores.gather(-1, tokens[0, 4:, None]).mean().item()
        assert one["mean_log_probability"] == pytest.approx(mean, abs=1e-5)


def test_a_sample_can_be_redrawn_from_its_record(directory, tmp_path):
    path = tmp_path / "samples.txt"
    write_samples(directory, path, num_samples=3)
    third = read_records(path)[2]
    write_samples(directory, path, **{**third["settings"], "num_samples": 1})
    assert read_records(path)[0]["text"] == third["text"]


def test_a_stop_string_is_left_out_and_reported_as_the_finish(directory, tmp_path):
    path = tmp_path / "samples.txt"
    write_samples(directory, path, max_new_tokens=60)
    (free,) = read_records(path)
    stop = free["text"][30:33]
    _, (one,) = split_samples(write_samples(directory, path, max_new_tokens=60, stop=[stop]))
    (record,) = read_records(path)
    assert record["finish"] == "stop"
    assert record["text"] == free["text"].partition(stop)[0]
    assert one == "once" + record["text"]


def test_records_do_not_escape_characters(directory, tmp_path):
    write_samples(directory, tmp_path / "samples.txt", start="日")
    assert '"prompt": "日"' in (tmp_path / "samples.jsonl").read_text("utf-8")


# --- N-grams --------------------------------------------------------------------------------


def test_samples_with_ngrams_are_labelled_and_equal_the_stream(directory, checkpoint, tmp_path):
    ngrams = make_ngrams(0.6)
    settings, path = with_settings(max_new_tokens=30), tmp_path / "samples.txt"
    sample("fable", directory, settings, path, ngrams)
    head, (one,) = split_samples(path.read_text(encoding="utf-8"))
    last = head.splitlines()[-1]
    assert last == "# mixed with n-grams: max_order 4, weight 0.6, caution 0.5"
    assert "".join(stream(checkpoint, settings, ngrams)) == one + "\n"
    assert "".join(stream(checkpoint, settings)) != one + "\n"
