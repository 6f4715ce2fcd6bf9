// One model's text, streamed into its part of the page.

import { requestOf } from "./share.js";
import { eventsOf } from "./sse.js";
import { describe } from "./tips.js";
import { Pieces, likelihood } from "./tokens.js";

const N_ALTERNATIVES = 5;

export class Generation {
  #abort = new AbortController();
  #status;
  #text;
  #pieces = new Pieces();
  #spans = [];
  #changed = new Set(); // pieces to draw
  #started;

  constructor(section, settings) {
    this.settings = settings;
    this.#status = section.querySelector("[data-status]");
    this.#text = section.querySelector("[data-text]");
    this.#text.setAttribute("aria-label", `Text of ${settings.model}`);
    const begin = document.createElement("span");
    begin.className = "begin";
    begin.textContent = settings.prompt;
    this.#text.append(begin);
  }

  get text() {
    return this.#pieces.text;
  }

  // Generates to the end. Returns an error message, or "".
  async run() {
    this.#started = performance.now();
    this.summary = "waiting";
    this.#show();
    try {
      const finish = await this.#stream();
      this.summary = { stop: "ended at a stop string", length: "done" }[finish] ?? "done";
      return "";
    } catch (error) {
      this.summary = this.#abort.signal.aborted ? "stopped" : "failed";
      return this.#abort.signal.aborted ? "" : error.message;
    } finally {
      this.#draw();
      this.#show();
    }
  }

  stop() {
    this.#abort.abort();
  }

  async #stream() {
    const response = await fetch("/v1/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...requestOf(this.settings), stream: true, logprobs: N_ALTERNATIVES }),
      signal: this.#abort.signal,
    }).catch(this.#lost);
    if (!response.ok) throw new Error(await refusal(response));
    this.summary = "generating";
    let finish;
    const events = eventsOf(response.body);
    for (;;) {
      const { value: data, done } = await events.next().catch(this.#lost);
      if (done) this.#lost();
      if (data === "[DONE]") return finish;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message ?? chunk.error);
      for (const choice of chunk.choices) {
        finish = choice.finish_reason ?? finish;
        this.#add(choice);
      }
    }
  }

  #lost = () => {
    const kept = this.#pieces.text ? "; the text so far is kept" : "";
    throw new Error(`the connection to the server was lost${kept}`);
  };

  #add(choice) {
    if (!this.#changed.size) requestAnimationFrame(() => this.#draw());
    for (const piece of this.#pieces.add(choice)) this.#changed.add(piece);
  }

  #draw() {
    const box = this.#text;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    for (const piece of this.#changed) {
      let span = this.#spans[piece.index];
      if (!span) {
        span = this.#spans[piece.index] = document.createElement("span");
        span.tabIndex = this.#spans.length === 1 ? 0 : -1;
        box.append(span);
      }
      span.textContent = piece.text;
      if (piece.tokens.length) {
        const sum = piece.tokens.reduce((total, token) => total + token.logprob, 0);
        span.className = likelihood(sum);
        describe(span, piece.tokens);
      }
      // A line feed has no width to point at.
      span.classList.toggle("line-feed", piece.text.startsWith("\n"));
    }
    this.#changed.clear();
    if (atEnd) box.scrollTop = box.scrollHeight;
    this.#show();
  }

  #show() {
    const seconds = (performance.now() - this.#started) / 1000;
    const n = this.#pieces.nTokens;
    const rate = n ? `, ${n} token${n === 1 ? "" : "s"}, ${(n / seconds).toFixed(0)} per second` : "";
    this.#status.textContent = this.summary + rate;
  }
}

// The message of a response that isn't OK, in one line.
export async function refusal(response) {
  const content = await response.json().catch(() => null);
  const message = content?.error?.message ?? content?.error;
  if (response.status !== 429) return message ?? `the server answered ${response.status}`;
  const seconds = response.headers.get("Retry-After");
  const after = seconds ? `wait ${seconds} s` : "wait a moment";
  return `the server is busy; ${after}, then try again`;
}
