"""Commands about tokens: tokenize."""

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, named, optional
from nanogpt.cli.finding import find_tokenizer
from nanogpt.errors import UserError, plural


@app.command
@examples(
    "tokenize",
    'nanogpt tokenize shakespeare_char "To be"',
    "nanogpt tokenize results/demo/model FILE:prompt.txt",
)
def tokenize(
    tokenizer: Annotated[Positional[str], named("TOKENIZER")],
    text: Annotated[Positional[str], optional("[TEXT]")] = "-",
) -> None:
    """Show a text as tokens: a line for each, with its id and its text.

    Args:
        tokenizer: a dataset or a run, by its name; or a tokenizer.json, or the directory of a
            dataset or a model with one, such as results/datasets/shakespeare.
        text: the text, or FILE:path of a UTF-8 file; without one, or with -: standard input.
    """
    from nanogpt.data.formats import read_text
    from nanogpt.data.saved_tokenizers import load_tokenizer

    known = load_tokenizer(find_tokenizer(tokenizer))
    if text == "-":
        if sys.stdin is None:  # closed
            raise UserError("nothing on standard input; give a text")
        text = sys.stdin.buffer.read().decode("utf-8")
    elif text.startswith("FILE:"):
        text = read_text(Path(text.removeprefix("FILE:")))
    tokens = known.encode(text)
    for token in tokens.tolist():
        data = known.to_bytes([token])
        try:
            shown = repr(data.decode("utf-8"))
        except UnicodeDecodeError:  # a part of a character
            shown = repr(data)
        print(f"{token:>6}  {shown}")
    n_bytes = len(text.encode("utf-8"))
    ratio = f", {n_bytes / len(tokens):.2f} bytes a token" if len(tokens) else ""
    print(f"{plural(len(tokens), 'token')} of {known.vocab_size}, {len(text)} characters{ratio}")
