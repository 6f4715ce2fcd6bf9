"""The playground's modules read streams and tokens, however they are cut."""

import pytest

EVENTS_OF = """async (pieces) => {
  const { eventsOf } = await import("/static/sse.js");
  const bytes = pieces.map((piece) => Uint8Array.from(piece));
  const body = new ReadableStream({
    start(controller) {
      for (const piece of bytes) controller.enqueue(piece);
      controller.close();
    },
  });
  const found = [];
  for await (const data of eventsOf(body)) found.push(data);
  return found;
}"""
PIECES_OF = """async (chunks) => {
  const { Pieces } = await import("/static/tokens.js");
  const pieces = new Pieces();
  const found = [];
  for (const chunk of chunks) for (const piece of pieces.add(chunk)) found[piece.index] = piece;
  const names = found.map(({ text, tokens }) => [text, tokens.map((token) => token.text)]);
  return [names, pieces.text, pieces.nTokens];
}"""


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_events_can_be_cut_anywhere(modules, size: int, end: str) -> None:
    lines = [
        ": kept alive",
        "",
        "data: é日🎭",
        "",
        "data:two",
        "data:  lines",
        "id: 1",
        "",
        "data: a",
    ]
    content = end.join(lines).encode()
    pieces = [list(content[start : start + size]) for start in range(0, len(content), size)]
    assert modules.evaluate(EVENTS_OF, pieces) == ["é日🎭", "two\n lines"]


def chunk(text: str, *tokens: tuple[str, int]) -> dict:
    logprobs = {
        "tokens": [name for name, _ in tokens],
        "token_logprobs": [-0.5 for _ in tokens],
        "top_logprobs": [{name: -0.5} for name, _ in tokens],
        "text_offset": [offset for _, offset in tokens],
    }
    return {"text": text, "logprobs": logprobs}


@pytest.mark.parametrize(
    ("chunks", "pieces"),
    [
        ([chunk("a", ("a", 0)), chunk("b", ("b", 1))], [["a", ["a"]], ["b", ["b"]]]),
        ([chunk("ab", ("a", 7), ("b", 8))], [["a", ["a"]], ["b", ["b"]]]),
        # An emoji is one code point, and two units of UTF-16.
        ([chunk("🎭", ("🎭", 0)), chunk("b", ("b", 1))], [["🎭", ["🎭"]], ["b", ["b"]]]),
        # Bytes of a character
        (
            [chunk("", ("1", 0)), chunk("", ("2", 0)), chunk("日", ("3", 0)), chunk("a", ("a", 1))],
            [["日", ["1", "2", "3"]], ["a", ["a"]]],
        ),
        # Text held back as the start of a stop string, then shown
        ([chunk("", ("x", 0)), chunk("xa", ("a", 1))], [["x", ["x"]], ["a", ["a"]]]),
        ([chunk("a", ("ab", 0)), chunk("bc", ("c", 2))], [["ab", ["ab"]], ["c", ["c"]]]),
        ([chunk("", ("x", 0)), chunk("xa", ("a", 0))], [["xa", ["x", "a"]]]),
        # Text held back until the end, and a token of a stop string, which isn't shown
        ([chunk("", ("x", 0)), chunk("x")], [["x", ["x"]]]),
        ([chunk("a", ("a", 0)), chunk("", ("\n", 1))], [["a", ["a"]]]),
        # Without logprobs
        ([{"text": "a", "logprobs": None}, {"text": "b"}], [["ab", []]]),
    ],
)
def test_each_piece_of_text_has_its_tokens(modules, chunks, pieces) -> None:
    found, text, n_tokens = modules.evaluate(PIECES_OF, chunks)
    assert found == pieces
    assert text == "".join(chunk["text"] for chunk in chunks)
    assert n_tokens == sum(len((chunk.get("logprobs") or {}).get("tokens", [])) for chunk in chunks)


def test_blanks_become_visible(modules) -> None:
    script = "async (texts) => texts.map((await import('/static/tokens.js')).visible)"
    texts = [" ", "   ", " a", "a b", "\n\n", "\t\r", "\x00\x1b", "日"]
    shown = ["␣", "␣␣␣", "␣a", "a b", "↵↵", "⇥␍", "␀␛", "日"]
    assert modules.evaluate(script, texts) == shown


def test_probabilities_are_short(modules) -> None:
    script = "async (values) => values.map((await import('/static/tokens.js')).percent)"
    values = [0, -1e-5, -0.1, -3, -10]
    assert modules.evaluate(script, values) == ["100.0 %", "> 99.9 %", "90.5 %", "5.0 %", "< 0.1 %"]
