"""The command `tokenize`."""

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, named, optional
from nanogpt.cli.finding import find_tokenizer
from nanogpt.config.values import expand_home
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
    """Split a text into tokens, and print the id and the text of each.

    Args:
        tokenizer: the name of a dataset or a run; a tokenizer.json; or a directory with one, such
            as results/datasets/shakespeare.
        text: the text, or FILE:path of a UTF-8 file; if not given or `-`: standard input.
    """
    from nanogpt.data.formats import read_text
    from nanogpt.data.saved_tokenizers import load_tokenizer

    known = load_tokenizer(find_tokenizer(tokenizer))
    if text == "-":
        if sys.stdin is None:  # it's closed
            raise UserError("tokenize: standard input is closed; give a text")
        text = sys.stdin.buffer.read().decode("utf-8")
    elif text.startswith("FILE:"):
        text = read_text(Path(expand_home(text.removeprefix("FILE:"))))
    tokens = known.encode(text)
    for token in tokens.tolist():
        data = known.to_bytes([token])
        try:
            shown = repr(data.decode("utf-8"))
        except UnicodeDecodeError:  # part of a character
            shown = repr(data)
        print(f"{token:>6}  {shown}")
    n_bytes = len(text.encode("utf-8"))
    ratio = f", {n_bytes / len(tokens):.2f} bytes per token" if len(tokens) else ""
    print(f"{plural(len(tokens), 'token')} of {known.vocab_size}, {len(text)} characters{ratio}")
