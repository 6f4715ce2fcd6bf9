// The text of a generation as pieces, each with the tokens that made it and their alternatives.

// Collects the chunks of a streamed choice with `logprobs`. Usually, a token makes one piece. If it
// ends inside a character, it belongs to the piece of the token that completes the character. The
// text of a token may come late, if it can be the start of a stop string.
export class Pieces {
  #characters = []; // of the whole text: offsets count code points
  #waiting = []; // tokens without text, so far
  #pieces = [];
  #end = 0; // of the last piece, in code points
  #offset; // of the text's first character
  nTokens = 0;

  get text() {
    return this.#characters.join("");
  }

  // Returns the pieces that are new or have grown: { index, text, tokens }. A token is
  // { text, logprob, others: [{ text, logprob }] }, where the likeliest of the others comes first.
  add({ text, logprobs }) {
    this.#characters.push(...text);
    const { tokens = [], token_logprobs = [], top_logprobs = [], text_offset = [] } = logprobs ?? {};
    const changed = new Set();
    this.nTokens += tokens.length;
    for (const [i, token] of tokens.entries()) {
      this.#offset ??= text_offset[i];
      const start = text_offset[i] - this.#offset;
      this.#extend(Math.min(start, this.#characters.length), changed);
      const others = Object.entries(top_logprobs?.[i] ?? {})
        .map(([other, logprob]) => ({ text: other, logprob }))
        .sort((a, b) => b.logprob - a.logprob);
      this.#waiting.push({ start, token: { text: token, logprob: token_logprobs[i], others } });
    }
    this.#extend(this.#characters.length, changed);
    return [...changed];
  }

  // Give the text up to a position to the tokens that start before it.
  #extend(end, changed) {
    while (this.#end < end) {
      const own = this.#waiting.filter(({ start }) => start <= this.#end);
      this.#waiting.splice(0, own.length);
      const next = Math.min(end, this.#waiting[0]?.start ?? end);
      if (own.length || !this.#pieces.length) {
        const tokens = own.map(({ token }) => token);
        this.#pieces.push({ index: this.#pieces.length, text: "", tokens });
      }
      const piece = this.#pieces.at(-1);
      piece.text += this.#characters.slice(this.#end, next).join("");
      changed.add(piece);
      this.#end = next;
    }
  }
}

// A token's text with its blanks made visible.
export function visible(text) {
  if (/^ +$/.test(text)) return text.replace(/ /g, "␣");
  return text
    .replace(/^ | $/g, "␣")
    .replace(/\r/g, "␍")
    .replace(/\n/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/[\0-\x1f]/g, (character) => String.fromCodePoint(0x2400 + character.charCodeAt(0)));
}

export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  if (value >= 99.95 && value < 100) return "> 99.9 %";
  if (value < 0.1) return value > 0 ? "< 0.1 %" : "0 %";
  return `${value.toFixed(1)} %`;
}

// The class of a token's color, from its probability.
export function likelihood(logprob) {
  const limits = [0.5, 0.2, 0.05, 0.01];
  const level = limits.findIndex((limit) => Math.exp(logprob) >= limit);
  return `level-${level < 0 ? limits.length : level}`;
}
