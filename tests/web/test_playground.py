"""The playground's page, and the tokens of a text."""

import json

import pytest

from nanogpt.data.byte_pairs import BytePairTokenizer, single_bytes
from nanogpt.data.tokenizers import ByteTokenizer, char_tokenizer
from nanogpt.web.playground import MOST_CHARACTERS, TextToSplit


@pytest.fixture(autouse=True)
def tokenizers(site):
    """A run with characters, and datasets with bytes and byte pairs."""
    pairs = BytePairTokenizer((*single_bytes(), b"th", b"the"))
    for place, tokenizer in (
        ("letters/model", char_tokenizer("\n abcé日")),
        ("datasets/bytes", ByteTokenizer()),
        ("datasets/pairs", pairs),
    ):
        (site.results / place).mkdir(parents=True)
        tokenizer.save(site.results / place / "tokenizer.json")


def split(client, text, **source):
    return client.post("/api/tokens", json={"text": text, **source})


def test_tokens_have_their_id_text_and_bytes(client):
    assert split(client, "é\na", model="letters").json() == [
        {"id": 5, "text": "é", "bytes": [0xC3, 0xA9]},
        {"id": 0, "text": "\n", "bytes": [10]},
        {"id": 2, "text": "a", "bytes": [97]},
    ]


def test_part_of_a_character_is_shown_by_its_bytes(client):
    pieces = split(client, "é", dataset="bytes").json()
    assert [piece["bytes"] for piece in pieces] == [[0xC3], [0xA9]]
    assert {piece["text"] for piece in pieces} == {"\ufffd"}


def test_byte_pairs_and_the_end_of_a_document(client):
    pieces = split(client, "the th<|endoftext|>", dataset="pairs").json()
    assert [piece["text"] for piece in pieces] == ["the", " ", "th", "<|endoftext|>"]


def test_an_empty_text_has_no_tokens(client):
    assert split(client, "", model="letters").json() == []


def test_characters_that_are_not_in_the_vocabulary_are_named(client):
    answer = split(client, "cab🎭", model="letters")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "the tokenizer's vocabulary of 7 characters lacks '🎭' (U+1F3AD); leave it out"
    }


def test_characters_that_are_not_in_the_vocabulary_can_be_left_out(client):
    assert [
        piece["text"] for piece in split(client, "c🎭ab", model="letters", unknown="skip").json()
    ] == [*"cab"]


def test_a_text_is_bounded(client):
    longest = "a" * MOST_CHARACTERS
    assert len(split(client, longest, model="letters").json()) == MOST_CHARACTERS
    answer = split(client, longest + "a", model="letters")
    assert answer.status_code == 400
    assert answer.json() == {"error": "text: has 20,001 characters; use 20,000 or fewer"}


@pytest.mark.parametrize(
    "name", ["other", "../letters", "letters/../letters", "..", "", ".", "a" * 5000, "<b>"]
)
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_name_that_is_not_there_is_refused(client, kind, name):
    answer = split(client, "a", **{kind: name})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_a_name_cannot_lead_out_of_the_results(client, site):
    outside = site.project.root / "elsewhere"
    outside.mkdir()
    ByteTokenizer().save(outside / "tokenizer.json")
    (site.results / "datasets/linked").symlink_to(outside)
    (site.results / "linked").mkdir()
    (site.results / "linked/model").symlink_to(outside)
    assert split(client, "a", dataset="linked").status_code == 400
    assert split(client, "a", model="linked").status_code == 400
    assert "linked" not in client.get("/playground").text


def test_a_tokenizer_that_is_replaced_is_read_again(client, site):
    file = site.results / "letters/model/tokenizer.json"
    assert split(client, "a", model="letters").json()[0]["id"] == 2
    char_tokenizer("ab").save(file)
    assert split(client, "a", model="letters").json()[0]["id"] == 0


def test_a_damaged_tokenizer_is_an_error_in_one_line(client, site):
    (site.results / "letters/model/tokenizer.json").write_text("{")
    answer = split(client, "a", model="letters")
    assert answer.status_code == 400
    assert "not a nanogpt tokenizer" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 422), ({"text": 1, "model": "letters"}, 422), ({"text": "a", "modle": "x"}, 400)],
)
def test_a_wrong_body_is_refused(client, body, status):
    assert client.post("/api/tokens", json=body).status_code == status


def test_unknown_fields_of_a_body_make_no_errors():
    content = {"text": "a", "model": "letters"} | dict.fromkeys(map(str, range(1000)), 1)
    assert TextToSplit.model_validate(content).text == "a"


def test_half_of_a_surrogate_pair_is_refused(client):
    body = json.dumps({"text": "\ud800", "model": "letters"})
    headers = {"content-type": "application/json"}
    answer = client.post("/api/tokens", content=body, headers=headers)
    assert answer.status_code == 400
    assert "lone surrogate" in answer.json()["error"]


def test_the_page_lists_the_datasets(client):
    page = client.get("/playground").text
    assert "<option>bytes</option>" in page
    assert "<option>pairs</option>" in page
