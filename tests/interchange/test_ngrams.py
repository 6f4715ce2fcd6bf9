"""A model that n-grams are mixed with isn't exported as if it were the GPT alone."""

import pytest

from nanogpt.errors import UserError
from nanogpt.interchange.ngrams import refuse_ngrams


def test_a_format_that_cant_hold_ngrams_refuses_them_by_name(tmp_path):
    refuse_ngrams(tmp_path, "GGUF")
    path = tmp_path / "ngrams.safetensors"
    path.touch()
    with pytest.raises(UserError) as error:
        refuse_ngrams(tmp_path, "GGUF")
    assert str(error.value).startswith(f"{path}: GGUF can't hold the n-grams that are mixed")
    assert len(str(error.value).splitlines()) == 1
