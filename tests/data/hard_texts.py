"""Texts that are hard to cut and join, and the kinds of tokenizers to test with them."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import strategies as st

MIRROR = Path(os.environ.get("NANOGPT_MIRROR") or "nowhere")
GPT2_FILES = MIRROR / "openaipublic.blob.core.windows.net/gpt-2/encodings/main"

needs_gpt2 = pytest.mark.skipif(
    not (GPT2_FILES / "vocab.bpe").is_file(),
    reason="GPT-2's file of merges is not there: NANOGPT_MIRROR is not set, or lacks it",
)

gpt2_only = [pytest.mark.mirror, needs_gpt2]

# Every character that Python or Unicode treats as a blank, line end or control character.
BLANKS = sorted(
    chr(code)
    for code in range(0x110000)
    if chr(code).isspace() or unicodedata.category(chr(code)) in ("Zs", "Zl", "Zp", "Cc")
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))

FRAGMENTS = [
    "'", "'s", "'ll", "'re", "'S", "\u2019s", "''", "don't", "they've", "7", "2024", "\u0663", "½",
    "a", "B", "Zwölf", "e\u0301", "--", ",", ".", "?", "!", "第3章", "漢字", "ひらがな", "カタカナ",
    "한국어", "々", "。", "\uff0c", "、", "\uff01", "\uff1b", "😀", "🇩🇪", "👩\u200d👧", "\u200d",
    "雨が降る", "風が吹く", "\ufeff", "\u180e", "\0", "<|endoftext|>",
]  # fmt: skip

# Hard to cut and join: runs of blanks, apostrophes, scripts without blanks, marks.
HARD = st.lists(
    st.one_of(
        st.sampled_from(BLANKS),
        st.sampled_from(" \n\t\r\u00a0\u3000\x1c\x1f\x85").flatmap(
            lambda blank: st.integers(1, 6).map(lambda times: blank * times)
        ),
        st.sampled_from(FRAGMENTS),
        TEXTS.filter(lambda text: len(text) < 5),
    ),
    max_size=40,
).map("".join)

SMALL_TEXT = (
    "The theatre's other brother, they'd say, bothers the father.  It isn't theirs;\n\n"
    "they've  gathered 1024 feathers — 2048 leathers?\tWährend die Bäuerin währte.\r\n"
    "雨が降る。風が吹く。雪が積もる。 春が来る\uff01 😀😀😀\n    indented = [1, 2, 3]\n"
) * 5

EVERY_CHARACTER = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))

ALL_KINDS = ["char", "byte", "pairs", pytest.param("gpt2", marks=gpt2_only)]

BYTE_PAIR_KINDS = ["pairs", pytest.param("gpt2", marks=gpt2_only)]


def joined(tokenizer, parts):
    """The concatenated tokens of parts that are encoded separately."""
    return [token for part in parts for token in tokenizer.encode(part).tolist()]
