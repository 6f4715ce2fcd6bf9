// What several pages' scripts share.

/** How long ago a time in seconds since 1970 was, in words; as nanogpt/web/wording.py. */
export function ago(time) {
  const seconds = Date.now() / 1000 - time;
  for (const [name, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.round(seconds / length).toLocaleString("en")} ${name} ago`;
  }
  return "now";
}

/** Bring all "3 min ago" of the page up to date. */
export function refreshTimes(part = document) {
  for (const time of part.querySelectorAll("time[data-time]")) {
    const text = ago(Number(time.dataset.time));
    if (time.textContent !== text) time.textContent = text;
  }
}

/** Parse HTML that the server rendered. */
export function parse(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

/** Get a text or JSON; null if the server doesn't answer or says no. */
export async function get(address, kind = "text") {
  try {
    const answer = await fetch(address, { headers: { Accept: kind === "json" ? "application/json" : "text/html" } });
    return answer.ok ? await answer[kind]() : null;
  } catch {
    return null;
  }
}

/** Call a function again and again while the page is visible. It returns the milliseconds to wait. */
export function repeat(look, first = 0) {
  let timer = 0;
  let busy = false;
  const go = async () => {
    if (busy || document.hidden) return;
    busy = true;
    const wait = await look();
    busy = false;
    timer = setTimeout(go, wait);
  };
  timer = setTimeout(go, first);
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) go();
  });
}
