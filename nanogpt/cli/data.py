"""Commands about tokens: tokenize."""

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from nanogpt.cli.app import app, examples, named, optional
from nanogpt.errors import UserError, plural


@app.command
@examples(
    "tokenize",
    'nanogpt tokenize results/datasets/shakespeare_char "To be"',
    "nanogpt tokenize results/demo/model FILE:prompt.txt",
)
def tokenize(
    tokenizer: Annotated[Positional[Path], named("TOKENIZER")],
    text: Annotated[Positional[str], optional("[TEXT]")] = "-",
) -> None:
    """Show a text as tokens: a line for each, with its id and its text.

    Args:
        tokenizer: a dataset, a model or a tokenizer.json, such as results/datasets/shakespeare.
        text: the text, or FILE:path of a UTF-8 file; without one, or with -: standard input.
    """
    from nanogpt.data.formats import read_text
    from nanogpt.data.saved_tokenizers import load_tokenizer

    known = load_tokenizer(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer)
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
