// The tokens of the prompt as colored pieces.

import { refusal } from "./generation.js";
import { annotate } from "./tips.js";
import { visible } from "./tokens.js";

const PAUSE = 250; // ms without typing
const byId = (id) => document.getElementById(id);

let timer;
let latest; // the newest request; older ones are cancelled

export function showTokens(form) {
  clearTimeout(timer);
  if (byId("tokens").open) timer = setTimeout(() => load(form.elements), PAUSE);
}

async function load(fields) {
  latest?.abort();
  latest = new AbortController();
  const { signal } = latest;
  const dataset = byId("tokenizer").value;
  const source = dataset ? { dataset } : { model: fields.model.value };
  try {
    const response = await fetch("/api/tokens", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        ...source,
        text: fields.prompt.value,
        unknown: fields.unknown.value,
      }),
      signal,
    });
    if (!response.ok) throw new Error(await refusal(response));
    draw(await response.json(), fields.prompt.value);
  } catch (error) {
    if (!signal.aborted) draw([], "", error.message);
  }
}

function draw(tokens, text, error = "") {
  byId("tokens-error").textContent = error;
  const spans = tokens.map((token, i) => {
    const span = document.createElement("span");
    span.tabIndex = i ? -1 : 0;
    span.textContent = shown(token);
    const n = token.bytes.length;
    annotate(span, [visible(token.text), `id ${token.id}, ${n} byte${n === 1 ? "" : "s"}`]);
    return span;
  });
  byId("tokens-text").replaceChildren(...spans);
  const n = tokens.length;
  const size = new TextEncoder().encode(text).length;
  const ratio = n ? `, ${(size / n).toFixed(2)} bytes per token` : "";
  const characters = [...text].length;
  byId("tokens-count").textContent = error
    ? ""
    : `${n} token${n === 1 ? "" : "s"}, ${characters} character${characters === 1 ? "" : "s"}${ratio}`;
}

// Part of a character is shown as its bytes. A line feed also gets a mark.
function shown({ text, bytes }) {
  if (text.includes("\ufffd"))
    return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return text.replace(/\n/g, "↵\n");
}
