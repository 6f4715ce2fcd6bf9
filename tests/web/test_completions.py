"""The API that OpenAI's clients know: texts, streams, log probabilities, errors and limits."""

import asyncio
import dataclasses
import json
import math
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
import torch
from fastapi.testclient import TestClient
from pydantic import ValidationError

from nanogpt.data.byte_pairs import END_OF_TEXT
from nanogpt.data.tokenizers import ByteTokenizer
from nanogpt.inference.sampling import draw_samples
from nanogpt.model.checkpoints import load_model
from nanogpt.web import answers
from nanogpt.web.app import create_app
from nanogpt.web.choices import EchoedPrompt
from nanogpt.web.completions import BASE_ONLY
from nanogpt.web.generating import BusyError, ClosedError
from nanogpt.web.models import UnavailableError
from nanogpt.web.openai_schema import ApiError, parse_request
from nanogpt.web.site import Limits
from nanogpt.web.token_names import TokenNames
from tests.inference.models import TOKENIZER, make_ngrams
from tests.web.made_models import DOUBLE, add_model, running, use_float64, wait_until

URL = "/v1/completions"
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "stop": [], "max_new_tokens": 16}


@pytest.fixture
def directory(site, monkeypatch):
    """The directory of a model `x` that computes in float64."""
    use_float64(monkeypatch)
    return add_model(site, "x")


def post(client, **body):
    return client.post(URL, json={"model": "x", "prompt": "once", **body})


def choices(client, **body):
    answer = post(client, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"]


def text_of(client, **body):
    (choice,) = choices(client, **body)
    return choice["text"]


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


def events(text):
    """Parse a stream of server-sent events, up to `[DONE]`."""
    *parts, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def stream(client, **body):
    answer = post(client, stream=True, **body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.text)


def samples(directory, ngrams=None, **settings):
    """Return what `nanogpt sample` draws, in float64."""
    checked = type(DOUBLE).model_validate(
        DOUBLE.model_dump() | PLAIN | {"dtype": "float32", "start": "once"} | settings
    )
    return draw_samples(
        load_model(directory), checked.model_copy(update={"dtype": "float64"}), ngrams
    )


# --- Texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "settings"),
    [
        ({}, {}),
        ({"max_tokens": 60}, {"max_new_tokens": 60}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}),
        ({"top_k": 3, "min_p": 0.1}, {"top_k": 3, "min_p": 0.1}),
        ({"repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"stop": ["a", "xy"], "max_tokens": 99}, {"stop": ["a", "xy"], "max_new_tokens": 99}),
        ({"prompt": ""}, {"start": ""}),
        ({"n": 3}, {"num_samples": 3}),
    ],
)
def test_a_text_is_that_of_sample_with_the_same_settings_and_seed(
    directory, client, request_, settings
):
    expected = samples(directory, seed=7, **settings)
    found = choices(client, seed=7, **request_)
    assert [(one["text"], one["finish_reason"]) for one in found] == [
        (one.text, one.finish) for one in expected
    ]
    assert [one["index"] for one in found] == list(range(len(expected)))


def test_texts_of_n_grams_are_mixed_in(directory, client, monkeypatch):
    ngrams = make_ngrams(0.9)
    monkeypatch.setattr("nanogpt.web.models.find_ngrams", lambda _: ngrams)
    (expected,) = samples(directory, ngrams, seed=7, max_new_tokens=30)
    assert text_of(client, seed=7, max_tokens=30) == expected.text


@pytest.mark.usefixtures("directory")
def test_choices_of_all_prompts_are_numbered_and_seeded_in_order(client):
    found = choices(client, prompt=["once", "a fox"], n=2, seed=3)
    alone = [text_of(client, prompt=p, seed=3 + i) for i, p in enumerate(["once"] * 2)]
    alone += [text_of(client, prompt="a fox", seed=seed) for seed in (5, 6)]
    assert [one["text"] for one in found] == alone


@pytest.mark.usefixtures("directory")
def test_tokens_are_prompts_too(client):
    tokens = TOKENIZER.encode("once").tolist()
    expected = text_of(client, seed=1)
    assert text_of(client, prompt=tokens, seed=1) == expected
    assert text_of(client, prompt=[tokens], seed=1) == expected
    assert choices(client, prompt=[tokens, tokens], seed=1)[0]["text"] == expected


@pytest.mark.usefixtures("directory")
def test_a_random_seed_is_returned_and_gives_the_same_text_again(client):
    first, second = post(client).json(), post(client).json()
    assert first["seed"] != second["seed"]
    assert text_of(client, seed=first["seed"]) == first["choices"][0]["text"]


def test_the_runs_own_settings_can_be_used(directory, client):
    own = DOUBLE.model_copy(update={"start": "once"})
    (expected,) = draw_samples(load_model(directory), own)
    answer = post(client, use_run_settings=True).json()
    assert answer["seed"] == own.seed
    assert answer["choices"][0]["text"] == expected.text
    assert answer["usage"]["completion_tokens"] == own.max_new_tokens


@pytest.mark.usefixtures("directory")
def test_usage_counts_each_prompt_once(client):
    usage = post(client, n=3, max_tokens=5).json()["usage"]
    assert usage == {"prompt_tokens": 4, "completion_tokens": 15, "total_tokens": 19}


@pytest.mark.usefixtures("directory")
def test_echo_begins_with_the_prompt_and_zero_tokens_are_only_the_prompt(client):
    assert text_of(client, echo=True, seed=1) == "once" + text_of(client, seed=1)
    answer = post(client, echo=True, max_tokens=0).json()
    assert answer["choices"][0]["text"] == "once"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0


def test_requests_together_get_the_texts_that_they_get_alone(directory, site):
    """Random requests join and leave a batch of streams and whole answers."""
    draw = random.Random(1)
    bodies = [
        {
            "prompt": "".join(draw.choices("abc xyz", k=draw.randint(1, 30))),
            "seed": draw.randrange(1000),
            "max_tokens": draw.randint(1, 60),
            "temperature": draw.choice([0.5, 1.0]),
            "top_k": draw.choice([0, 5]),
            "stop": draw.choice([None, "q"]),
            "logprobs": draw.choice([None, 2]),
            "model": "x",
            "stream": draw.random() < 0.5,
        }
        for _ in range(40)
    ]

    def text(body):
        time.sleep(random.random() / 10)
        answer = httpx.post(url + URL, json=body, timeout=60)
        parts = events(answer.text) if body["stream"] else [answer.json()]
        return "".join(part["choices"][0]["text"] for part in parts)

    expected = []
    for body in bodies:
        names = ("seed", "temperature", "top_k")
        same = {name: body[name] for name in names} | {"stop": body["stop"] or []}
        (one,) = samples(directory, start=body["prompt"], max_new_tokens=body["max_tokens"], **same)
        expected.append(one.text)
    with running(site) as url, ThreadPoolExecutor(20) as pool:
        assert list(pool.map(text, bodies)) == expected


# --- Streams --------------------------------------------------------------------------------


@pytest.mark.usefixtures("directory")
def test_a_stream_has_the_same_text_piece_by_piece(client):
    whole = post(client, seed=1, max_tokens=40, n=2).json()
    found = stream(client, seed=1, max_tokens=40, n=2)
    for index, choice in enumerate(whole["choices"]):
        mine = [e["choices"][0] for e in found if e["choices"][0]["index"] == index]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert len(mine) > 3
        assert [one["finish_reason"] for one in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1]["finish_reason"] == "length"
    assert len({event["id"] for event in found}) == 1
    assert {event["object"] for event in found} == {"text_completion"}
    assert {event["seed"] for event in found} == {1}


@pytest.mark.usefixtures("directory")
def test_usage_comes_at_a_streams_end_if_it_is_asked_for(client):
    *rest, last = stream(client, max_tokens=5, stream_options={"include_usage": True})
    assert {event["usage"] for event in rest} == {None}
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}
    assert "usage" not in stream(client, max_tokens=5)[-1]


@pytest.mark.usefixtures("directory")
def test_a_streams_log_probabilities_are_those_of_the_whole(client):
    body = {"seed": 1, "logprobs": 3, "echo": True, "max_tokens": 30}
    (whole,) = choices(client, **body)
    parts = [event["choices"][0]["logprobs"] for event in stream(client, **body)]
    for name, values in whole["logprobs"].items():
        assert [value for part in parts for value in part[name]] == values


# --- Log probabilities ----------------------------------------------------------------------


def test_log_probabilities_are_those_of_the_model(directory, client):
    (one,) = choices(client, logprobs=2, seed=1, temperature=0.5, echo=True)
    found = one["logprobs"]
    assert "".join(found["tokens"]) == one["text"]
    assert found["text_offset"] == list(range(20))
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    tokens = TOKENIZER.encode(one["text"][:16])
    model = load_model(directory).model.double()
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens.astype("int64"))[None])[0].log_softmax(-1)
    for place, score in enumerate(found["token_logprobs"][1:16]):
        assert math.isclose(score, expected[place, int(tokens[place + 1])], abs_tol=1e-5)
        likely = found["top_logprobs"][place + 1]
        best = {TOKENIZER.vocabulary[i] for i in expected[place].topk(2).indices}
        assert set(likely) == best | {found["tokens"][place + 1]}
        assert likely[found["tokens"][place + 1]] == score


@pytest.mark.usefixtures("directory")
def test_zero_alternatives_are_the_token_itself(client):
    (one,) = choices(client, logprobs=0)
    scores = one["logprobs"]
    assert [list(likely) for likely in scores["top_logprobs"]] == [[t] for t in scores["tokens"]]
    assert choices(client)[0]["logprobs"] is None


@pytest.mark.usefixtures("directory")
def test_log_probabilities_of_long_prompts_are_written_in_a_thread(client, monkeypatch):
    body = {"prompt": ["once", "a fox"], "n": 2, "logprobs": 2, "seed": 1, "echo": True}
    short = choices(client, **body)
    written, write = [], EchoedPrompt.write

    def record(self):
        with pytest.raises(RuntimeError):  # there's no event loop in this thread
            asyncio.get_running_loop()
        written.append(self)
        write(self)

    monkeypatch.setattr(EchoedPrompt, "write", record)
    monkeypatch.setattr(answers, "MOST_WRITTEN", 0)
    assert choices(client, **body) == short
    assert len(written) == 2  # once for each prompt
    (whole,) = choices(client, **body | {"prompt": "a fox", "n": 1, "seed": 3})
    assert whole | {"index": 2} == short[2]


class Vocabulary:
    """A tokenizer with the given texts."""

    def __init__(self, *texts):
        self.texts = texts
        self.vocab_size = len(texts)

    def to_bytes(self, ids):
        return b"".join(self.texts[token] for token in ids)


def test_names_of_tokens_differ():
    texts = [b"a", "é".encode(), b"\xc3", b"bytes:\\xc3", b"", b"<|endoftext|>", b"\n"]
    names = TokenNames(Vocabulary(*texts))
    assert [names[token] for token in range(7)] == [
        "a",
        "é",
        "bytes:\\xc3",
        "bytes:\\xc3 (token 3)",
        END_OF_TEXT,
        "<|endoftext|> (token 5)",
        "\n",
    ]
    all_bytes = TokenNames(ByteTokenizer())
    assert len(set(all_bytes.as_json)) == 256
    assert [json.loads(name) for name in all_bytes.as_json][65] == "A"


# --- OpenAI's client ------------------------------------------------------------------------


def test_openais_client_works_unchanged(directory, site):
    (expected,) = samples(directory, seed=5, max_new_tokens=20)
    with running(site) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["x"]
        assert client.models.retrieve("x").owned_by == "nanogpt"
        body = {"model": "x", "prompt": "once", "seed": 5, "max_tokens": 20}
        whole = client.completions.create(**body, logprobs=2, n=2)
        assert whole.choices[0].text == expected.text
        assert whole.choices[1].text != expected.text
        assert whole.usage.completion_tokens == 40
        assert whole.choices[0].logprobs.tokens == list(expected.text)
        assert all(len(likely) in (2, 3) for likely in whole.choices[0].logprobs.top_logprobs)
        with client.completions.create(
            **body, stream=True, logprobs=0, stream_options={"include_usage": True}
        ) as parts:
            *parts, last = list(parts)
        assert "".join(part.choices[0].text for part in parts) == expected.text
        assert sum(len(part.choices[0].logprobs.tokens) for part in parts) == 20
        assert last.usage.total_tokens == 24
        likeliest = client.completions.create(**body, extra_body={"top_k": 1})
        assert (
            likeliest.choices[0].text
            == samples(directory, temperature=0, max_new_tokens=20)[0].text
        )
        with pytest.raises(openai.NotFoundError, match="did you mean"):
            client.completions.create(model="xx", prompt="once")
        with pytest.raises(openai.BadRequestError, match="base models"):
            client.chat.completions.create(model="x", messages=[])


# --- Errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"n": 0}, "n", "greater than"),
        ({"promt": "x"}, "promt", "did you mean `prompt`"),
        ({"prompt": {"a": 1}}, "prompt", "a list of texts"),
        ({"prompt": [[1], "a"]}, "prompt", "a list of texts"),
        ({"prompt": [-1]}, "prompt", "a list of texts"),
        ({"prompt": [10**6]}, "prompt", "no token 1000000"),
        ({"prompt": "Ω"}, "prompt", "lacks 'Ω'"),
        ({"stop": ""}, "stop", "empty"),
        ({"stop": 1}, "stop", "a text or a list"),
        ({"stop": ["a"] * 17}, "stop", "17 texts, at most 16"),
        ({"stop": "a" * 201}, "stop", "201 characters, at most 200"),
        ({"max_tokens": 5000}, "max_tokens", "5,000 tokens, at most 4,096"),
        ({"n": 17}, "n", "17 choices with all prompts, at most 16"),
        ({"prompt": ["a"] * 9, "n": 2}, "n", "18 choices"),
        ({"prompt": "a" * 200_001}, "prompt", "200,001 characters, at most 200,000"),
        ({"prompt": [1] * 50_001}, "prompt", "50,001 tokens, at most 50,000"),
        ({"prompt": [[1], [1] * 50_001]}, "prompt", "50,001 tokens"),
        ({"logprobs": 11}, "logprobs", "at most 10"),
        (
            {"prompt": "a" * 17_000, "n": 2, "echo": True, "logprobs": 0},
            "logprobs",
            "34,000 tokens of prompts with all choices to echo, at most 32,768",
        ),
        ({"suffix": "x"}, "suffix", "only continue"),
        ({"best_of": 3}, "best_of", "not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "repetition_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty", "repetition_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
        ({"model": "y"}, "model", "no model `y`"),
        ({"model": "../x"}, "model", "no model"),
        ({"model": "x" * 100_000}, "model", "no model `xxx"),
        ({"x" * 100_000: 1}, "x" * 80 + "…", "unknown setting"),
    ],
)
@pytest.mark.usefixtures("directory")
def test_a_wrong_request_gets_one_line(client, body, param, message):
    error = error_of(post(client, **body), 404 if "model" in body else 400)
    assert error["param"] == param
    assert message in error["message"]
    assert len(error["message"]) < 300


def test_the_largest_number_of_likely_tokens_is_all(client, directory):  # noqa: ARG001
    assert text_of(client, seed=1, top_k=2**63 - 1) == text_of(client, seed=1)


WHOLE_NUMBERS = ("n", "max_tokens", "logprobs", "seed", "top_k", "best_of")


@pytest.mark.parametrize("digits", [40, 4300, 5000])
@pytest.mark.parametrize("field", [*WHOLE_NUMBERS, "prompt", "temperature", "model"])
@pytest.mark.usefixtures("directory")
def test_a_number_that_is_too_long_gets_one_line(client, field, digits):
    value = "9" * digits
    value = f"[{value}]" if field == "prompt" else value
    model = "" if field == "model" else '"model": "x", '
    more = ', "prompt": ["a", "b"]' if field == "n" else ""
    body = f'{{{model}"{field}": {value}{more}}}'
    answer = client.post("/v1/completions", content=body)
    if (field, digits) == ("temperature", 40):
        assert answer.status_code == 200
        return
    error = error_of(answer, 400)
    assert error["param"] == (None if digits == 5000 else field)
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "isn't JSON"),
        (b'{"model":', "isn't JSON"),
        (b'{"model": "\xff"}', "isn't JSON"),
        (b"[" * 10_000, "isn't JSON"),
        (b"[]", "isn't a JSON object"),
        (b'{"prompt": "a"}', "model: missing"),
    ],
)
@pytest.mark.usefixtures("directory")
def test_a_body_that_isnt_a_request_gets_one_line(client, content, message):
    assert message in error_of(client.post(URL, content=content), 400)["message"]


MANY = 50_000


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [{}] * MANY}, "prompt"),
        ({"prompt": ["", *[1] * MANY]}, "prompt"),
        ({"prompt": [[-1] * MANY]}, "prompt"),
        ({"stop": [{}] * MANY}, "stop"),
        ({"logit_bias": dict.fromkeys(range(MANY), "")}, "logit_bias"),
        (dict.fromkeys(range(MANY), 1), None),
    ],
    ids=["objects", "mixed", "tokens", "stops", "biases", "fields"],
)
def test_many_mistakes_in_a_body_make_few_errors(fields, param):
    """Each error takes time and a kilobyte, and each two bytes of a body can be a mistake."""
    with pytest.raises(ApiError) as caught:
        parse_request(json.dumps({"model": "x"} | fields).encode(), Limits())
    assert caught.value.status == 400
    assert caught.value.param == param
    errors = caught.value.__context__
    assert not isinstance(errors, ValidationError) or errors.error_count() < 10


@pytest.mark.usefixtures("directory")
def test_neutral_values_of_what_we_dont_support_are_accepted(client):
    neutral = {"best_of": 1, "suffix": None, "presence_penalty": 0, "frequency_penalty": 0.0}
    neutral |= {"logit_bias": {}, "user": "me", "stop": None, "stream": False, "max_tokens": None}
    assert text_of(client, seed=1, **neutral) == text_of(client, seed=1)


@pytest.mark.usefixtures("directory")
def test_characters_that_arent_in_the_vocabulary_can_be_skipped(client):
    assert text_of(client, prompt="Ωonce", unknown="skip", seed=1) == text_of(client, seed=1)


def test_chat_is_refused_in_one_line(client):
    error = error_of(client.post("/v1/chat/completions", json={"messages": []}), 400)
    assert error["message"] == BASE_ONLY


def test_models_are_listed_and_described(directory, client):
    (listed,) = client.get("/v1/models").json()["data"]
    assert listed == {"id": "x", "object": "model", "owned_by": "nanogpt"} | {
        "created": int((directory / "model.safetensors").stat().st_mtime)
    }
    described = client.get("/v1/models/x").json()
    assert described["settings"]["temperature"] == DOUBLE.temperature
    assert "did you mean `x`" in error_of(client.get("/v1/models/xx"), 404)["message"]


def test_a_damaged_model_is_an_error_of_the_server(directory, client):
    (directory / "config.json").write_text("{")
    error = error_of(post(client), 500)
    assert error["type"] == "server_error"
    assert "config.json" in error["message"]


@pytest.mark.parametrize("streams", [False, True])
def test_values_that_overflow_are_an_error_of_the_request(site, client, streams):
    add_model(site, "x", scale=1e30)
    error = error_of(post(client, stream=streams), 500)
    assert "overflow" in error["message"]


# --- Limits and clients that go away --------------------------------------------------------


def load_of(url):
    """Return the running and the waiting sequences of a server."""
    page = httpx.get(f"{url}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if line[0] != "#")
    return float(lines["nanogpt_batch_size"]), float(lines["nanogpt_waiting"])


@pytest.fixture
def endless(site):
    """A site whose completions don't end while a test runs, with few of them at once."""
    add_model(site, "x", n_layer=1, n_head=1, n_embd=8)
    limits = Limits(new_tokens=10**7, admitted=2, waiting=1)
    return dataclasses.replace(site, limits=limits)


def begin(url, **body):
    """Send a request and return its connection."""
    body = json.dumps({"model": "x", "prompt": "once", "max_tokens": 10**7, **body}).encode()
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    # A small buffer, so that a client that doesn't read soon makes the server wait.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    head = f"POST {URL} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_goes_away_frees_its_work_within_a_second(endless, streams):
    with running(endless) as url:
        connection = begin(url, stream=streams, n=2)
        wait_until(lambda: load_of(url) == (2, 0))
        waiting = begin(url, stream=streams)
        wait_until(lambda: load_of(url) == (2, 1))
        waiting.close()
        wait_until(lambda: load_of(url) == (2, 0), seconds=1)
        connection.close()
        wait_until(lambda: load_of(url) == (0, 0), seconds=1)
        assert 'nanogpt_requests_total{outcome="cancelled"} 2.0' in httpx.get(f"{url}/metrics").text


def test_a_full_queue_is_refused_with_the_time_to_wait(endless):
    with running(endless) as url:
        connection = begin(url, stream=True, n=3)
        wait_until(lambda: load_of(url) == (2, 1))
        answer = httpx.post(url + URL, json={"model": "x", "prompt": "once"})
        assert "try again" in error_of(answer, 429)["message"]
        assert answer.headers["retry-after"] == "1"
        connection.close()
        wait_until(lambda: load_of(url) == (0, 0))
        assert httpx.post(url + URL, json={"model": "x", "prompt": "once"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "error", "status"),
    [
        ("models.Models.acquire", BusyError(), 429),
        ("models.Models.acquire", UnavailableError("x: its files are being replaced"), 503),
        ("generating.Batcher.submit", BusyError(), 429),
        ("generating.Batcher.submit", ClosedError(), 503),
        ("answers.Completion.wait", ClosedError("the server stops"), 503),
    ],
)
@pytest.mark.usefixtures("directory")
def test_a_request_that_can_be_sent_again_is_told_when(client, monkeypatch, method, error, status):
    async def wait(completion, **_):
        completion.error = error

    def fail(*_):
        raise error

    monkeypatch.setattr(f"nanogpt.web.{method}", wait if method.endswith("wait") else fail)
    answer = post(client)
    assert error_of(answer, status)["code"] in ("queue_full", "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_bug(site):
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]
    messages.append({"type": "http.disconnect"})
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(create_app(site)(request_scope(), receive, send))
    assert [message.get("status") for message in sent][:1] in ([], [400])


def test_closing_an_application_closes_its_models_and_its_index(site):
    add_model(site, "x")
    app = create_app(site)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        post(client, max_tokens=1)
        client.get("/api/runs")
        (model,) = app.state.models.in_memory()
        assert app.state.index._file._database
    assert not model.batcher._thread.is_alive()
    assert app.state.index._file._database is None


def request_scope():
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": URL}
    return scope | {"query_string": b"", "headers": [(b"host", b"127.0.0.1")]}


def call(app, body, send):
    """Send a request to an application whose client stays, and takes what `send` takes."""
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()

    return app(request_scope(), receive, send)


def test_a_client_that_reads_nothing_is_given_up(endless):
    limits = dataclasses.replace(endless.limits, stall_seconds=0.4)
    with (
        running(dataclasses.replace(endless, limits=limits)) as url,
        begin(url, stream=True, logprobs=10),
    ):
        wait_until(lambda: load_of(url) == (1, 0))
        wait_until(lambda: load_of(url) == (0, 0))


@pytest.mark.usefixtures("directory")
def test_a_slow_client_gets_several_tokens_in_one_event(site):
    app = create_app(site)
    sent = []

    async def send(message):
        await asyncio.sleep(0.2)
        sent.append(message.get("body", b""))

    body = {"model": "x", "prompt": "once", "max_tokens": 100, "seed": 1, "stream": True}
    asyncio.run(call(app, body, send))
    found = events(b"".join(sent).decode())
    assert len(found) < 20
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        expected = text_of(client, max_tokens=100, seed=1)
    assert "".join(event["choices"][0]["text"] for event in found) == expected


def test_a_replaced_model_answers_new_requests_while_an_old_one_goes_on(site, monkeypatch):
    use_float64(monkeypatch)
    old = add_model(site, "x", seed=0)
    (old_text,) = [one.text for one in samples(old, seed=1, max_new_tokens=3000)]
    site = dataclasses.replace(site, limits=Limits(new_tokens=3000))
    body = {"model": "x", "prompt": "once", "seed": 1}
    with (
        running(site) as url,
        httpx.stream("POST", url + URL, json=body | {"stream": True, "max_tokens": 3000}) as going,
    ):
        parts = going.iter_text()
        text = next(parts)
        new = add_model(site, "x", seed=1)
        answer = httpx.post(url + URL, json=body).json()
        assert answer["choices"][0]["text"] == samples(new, seed=1)[0].text
        text += "".join(parts)
        assert "".join(e["choices"][0]["text"] for e in events(text)) == old_text
        wait_until(lambda: "nanogpt_models_loaded 1.0" in httpx.get(f"{url}/metrics").text)


@pytest.mark.usefixtures("directory")
def test_metrics_count_requests_and_tokens(site):
    with TestClient(create_app(site), base_url="http://127.0.0.1:8000") as client:
        post(client, max_tokens=7, n=2)
        post(client, model="y")
        page = client.get("/metrics").text
    assert 'nanogpt_requests_total{outcome="ok"} 1.0' in page
    assert 'nanogpt_requests_total{outcome="refused"} 1.0' in page
    assert "nanogpt_generated_tokens_total 14.0" in page
    assert "nanogpt_prompt_tokens_total 4.0" in page
    assert "nanogpt_first_token_seconds_count 1.0" in page
    assert "nanogpt_models_loaded 1.0" in page
