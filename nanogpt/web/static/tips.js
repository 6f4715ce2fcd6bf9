// The details of a token, shown while the pointer is on it or while it has the focus.

import { percent, visible } from "./tokens.js";

const contents = new WeakMap(); // a function that makes the content for each element

// Attach a token's probability and alternatives to its element.
export function describe(element, tokens) {
  contents.set(element, () => tokens.map(tableOf));
}

// Attach lines of text.
export function annotate(element, lines) {
  contents.set(element, () =>
    lines.map((line) => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }),
  );
}

// Show the details of the elements in a container. Arrow keys move between them.
export function listenToTokens(container, tip) {
  const show = (element) => {
    const content = contents.get(element);
    if (!content) return;
    tip.replaceChildren(...content());
    tip.hidden = false;
    place(tip, element);
    element.setAttribute("aria-describedby", tip.id);
  };
  const hide = () => {
    tip.hidden = true;
  };
  container.addEventListener("pointerover", (event) => show(event.target));
  container.addEventListener("pointerout", hide);
  container.addEventListener("focusin", (event) => show(event.target));
  container.addEventListener("focusout", hide);
  container.addEventListener("scroll", hide, true);
  container.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const target = neighbour(event.target, event.key);
    if (!target) return;
    event.preventDefault();
    moveFocus(event.target, target);
  });
  container.addEventListener("click", (event) => {
    const current = container.querySelector('[tabindex="0"]');
    if (contents.has(event.target)) moveFocus(current, event.target);
  });
}

function neighbour(element, key) {
  const steps = {
    ArrowRight: (one) => one.nextElementSibling,
    ArrowLeft: (one) => one.previousElementSibling,
    Home: (one) => one.parentElement.querySelector("[tabindex]"),
    End: (one) => one.parentElement.lastElementChild,
  };
  if (!contents.has(element) || !(key in steps)) return null;
  const found = steps[key](element);
  return contents.has(found) ? found : null;
}

// Only one token can be reached with Tab.
function moveFocus(from, to) {
  if (from) from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

function tableOf(token) {
  const table = document.createElement("table");
  table.createCaption().textContent = "before temperature";
  const body = table.createTBody();
  const isListed = token.others.some((other) => other.text === token.text);
  const rows = isListed ? token.others : [token, ...token.others];
  for (const { text, logprob } of rows) {
    const row = body.insertRow();
    if (text === token.text) row.className = "own";
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = visible(text);
    row.append(name);
    row.insertCell().textContent = percent(logprob);
    const meter = document.createElement("meter");
    meter.value = Math.exp(logprob);
    meter.setAttribute("aria-hidden", "true");
    row.insertCell().append(meter);
  }
  return table;
}

// Below the element's first line, or above it if there's no room.
function place(tip, element) {
  const [line] = element.getClientRects();
  if (!line) return;
  const width = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(line.left, width - tip.offsetWidth - 8));
  const below = line.bottom + 6;
  const isBelow = below + tip.offsetHeight < innerHeight || line.top < tip.offsetHeight + 6;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(isBelow ? below : line.top - tip.offsetHeight - 6) + scrollY}px`;
}
