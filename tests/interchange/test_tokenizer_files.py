"""A Hugging Face tokenizer.json has the same tokens as ours and survives a round trip."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Theirs

from nanogpt.data.byte_pairs import BytePairTokenizer, single_bytes
from nanogpt.data.tokenizers import CharTokenizer
from nanogpt.errors import UserError
from nanogpt.interchange.tokenizer_files import merges_of, read_tokenizer_json, tokenizer_json
from tests.interchange.models import MIRROR, TEXT, TOKENIZERS, merges_file, needs_mirror, tokenizer

KINDS = [kind for kind in TOKENIZERS if kind != "gpt2" or MIRROR]
THEIRS = {kind: Theirs.from_str(tokenizer_json(tokenizer(kind))) for kind in KINDS}

# Many kinds of blanks, letters, digits, marks, and special cases of GPT-2's pattern.
PIECES = st.sampled_from(
    [
        *(" ", "  ", "\n", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\xa0", "\u2003", "\u3000"),
        *("'s", "'LL", "the", "été", "21", "²", "٣", "_", "!!", "日本", "🙂", "a\u0301", "\0"),
        "<|endoftext|>",
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=20))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_survives_a_round_trip(kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(tokenizer(kind)), encoding="utf-8")
    assert read_tokenizer_json(tmp_path / "tokenizer.json") == tokenizer(kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "char"])
@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_any_text_has_the_same_tokens_and_decodes_to_itself(kind, text):
    ids = tokenizer(kind).encode_prompt(text, "error").tolist()
    assert THEIRS[kind].encode(text).ids == ids
    assert THEIRS[kind].decode(ids, skip_special_tokens=False) == text


@settings(deadline=None)
@given(text=st.text(alphabet=sorted(set(TEXT)), max_size=50))
def test_characters_have_the_same_tokens_and_decode_to_themselves(text):
    ids = tokenizer("char").encode(text).tolist()
    assert THEIRS["char"].encode(text).ids == ids
    assert THEIRS["char"].decode(ids) == text


def test_any_character_can_be_in_a_vocabulary(tmp_path):
    strange = CharTokenizer("\0\n\r \"'<>\\\u0301\u2028\ufeff\U0001f642")
    theirs = Theirs.from_str(tokenizer_json(strange))
    assert theirs.encode(strange.vocabulary).ids == list(range(strange.vocab_size))
    assert theirs.decode(list(range(strange.vocab_size))) == strange.vocabulary
    (tmp_path / "t.json").write_text(tokenizer_json(strange), encoding="utf-8")
    assert read_tokenizer_json(tmp_path / "t.json") == strange


def test_an_unknown_character_is_an_error():
    with pytest.raises(Exception, match="UNK"):
        THEIRS["char"].encode("the ☃")


@needs_mirror
def test_gpt2s_merges_are_recovered_from_its_tokens():
    lines = merges_file().read_text(encoding="utf-8").split("\n")[1:-1]
    assert [" ".join(pair) for pair in merges_of(tokenizer("gpt2"))] == lines


def test_a_token_that_is_not_the_join_of_two_others_is_rejected():
    with pytest.raises(UserError, match=r"token b'abcd' isn't the join of two others"):
        tokenizer_json(BytePairTokenizer((*single_bytes(), b"abcd")))


def edited(edit, kind="bpe"):
    """The content of an edited tokenizer.json."""
    content = json.loads(tokenizer_json(tokenizer(kind)))
    edit(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "damaged: not JSON"),
        ("{}", "not a tokenizer: `model`"),
        (edited(lambda c: c.update(normalizer={"type": "NFC"})), "changes the text first (NFC)"),
        (
            edited(lambda c: c.update(post_processor={"type": "TemplateProcessing"})),
            "adds tokens to the text (TemplateProcessing)",
        ),
        (
            edited(lambda c: c["added_tokens"].append({"id": 290, "content": "<|user|>"})),
            "has a special token '<|user|>'",
        ),
        (edited(lambda c: c["added_tokens"].clear()), "has no <|endoftext|>"),
        (
            edited(lambda c: c["model"]["merges"].reverse()),
            "doesn't number its tokens in merge order",
        ),
        (
            edited(lambda c: c["pre_tokenizer"].update(add_prefix_space=True)),
            "doesn't split text into bytes",
        ),
        (
            edited(lambda c: c["pre_tokenizer"].update(use_regex=False)),
            "doesn't number its tokens in merge order",
        ),
        (edited(lambda c: c["model"].update(type="Unigram")), "is a Unigram model"),
        (edited(lambda c: c["model"]["vocab"].update(word=99), "char"), "has gaps"),
        (
            edited(lambda c: c["model"].update(vocab={"word": 0}), "char"),
            "has whole words as tokens",
        ),
        (
            edited(lambda c: c["model"]["vocab"].update({"€": 289})),
            "has <|endoftext|> as token 289",
        ),
    ],
)
def test_an_unsupported_tokenizer_is_a_one_line_error(content, words, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError) as error:
        read_tokenizer_json(tmp_path / "tokenizer.json")
    assert words in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'tokenizer.json'}: ")
