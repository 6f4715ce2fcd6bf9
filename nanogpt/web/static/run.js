// A run's page: its state and log, as they change.
import { get, parse, refreshTimes, repeat } from "./common.js";

const LOOK = 2000; // milliseconds
const LIVE = 10000; // milliseconds between looks at the numbers of a run that trains

const name = document.querySelector("[data-name]").dataset.name;
const address = `/runs/${encodeURIComponent(name)}`;
const state = document.querySelector("[data-state]");
const rest = document.querySelector("[data-rest]");
const announcer = document.querySelector("[data-announcer]");
let version = state.firstElementChild.dataset.version;
let status = state.firstElementChild.dataset.status;
let refreshed = Date.now();

/** Get the parts that appear when a stage ends: evaluation, samples, settings. */
async function refreshRest() {
  const html = await get(address);
  if (html === null) return;
  refreshed = Date.now();
  const page = parse(html);
  const stage = rest.querySelector("select[name=stage]")?.value;
  const open = new Set([...rest.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  rest.replaceChildren(...page.querySelector("[data-rest]").childNodes);
  for (const summary of rest.querySelectorAll("details > summary")) {
    if (open.has(summary.textContent)) summary.parentElement.open = true;
  }
  document.querySelector("[data-actions]").replaceChildren(...page.querySelector("[data-actions]").childNodes);
  document.querySelector("nav.parts").replaceChildren(...page.querySelector("nav.parts").childNodes);
  prepareLog(stage);
  document.dispatchEvent(new Event("rest"));
}

/** Get the numbers that change while the run trains. */
async function refreshNumbers() {
  const html = await get(address);
  if (html === null) return;
  refreshed = Date.now();
  for (const fresh of parse(html).querySelectorAll("[data-live]")) {
    const shown = rest.querySelector(`[data-live="${fresh.dataset.live}"]`);
    const details = fresh.querySelector("details");
    if (details) details.open = shown?.querySelector("details")?.open ?? false;
    shown?.replaceChildren(...fresh.childNodes);
  }
}

async function look() {
  const html = await get(`${address}/state`);
  if (html === null) return 5 * LOOK;
  const found = parse(html).body.firstElementChild;
  const isActive = found.dataset.status === "training" || found.dataset.status === "waiting";
  if (found.dataset.version !== version) {
    const isOtherStatus = found.dataset.status !== status;
    version = found.dataset.version;
    status = found.dataset.status;
    state.replaceChildren(found);
    if (isOtherStatus) {
      announcer.textContent = `${name}: ${status}`;
      document.dispatchEvent(new CustomEvent("status", { detail: { isActive } }));
    }
    const lacksLog = status === "training" && !rest.querySelector("[data-log]");
    if (isOtherStatus || !isActive || lacksLog) await refreshRest();
    else if (Date.now() - refreshed > LIVE) await refreshNumbers();
  }
  refreshTimes();
  if (isActive || status === "not evaluated") await refreshLog();
  return LOOK;
}

// --- Log ------------------------------------------------------------------------------------

function prepareLog(stage) {
  const form = rest.querySelector("[data-logs]");
  if (!form) return;
  const select = form.querySelector("select");
  form.hidden = select.options.length < 2;
  const isKnown = [...select.options].some((one) => one.value === stage);
  if (isKnown) select.value = stage;
  select.addEventListener("change", () => refreshLog(true));
  if (isKnown && select.selectedIndex > 0) refreshLog(true);
  const log = rest.querySelector("[data-log]");
  log.scrollTop = log.scrollHeight;
}

async function refreshLog(isOther = false) {
  const log = rest.querySelector("[data-log]");
  if (!log) return;
  const stage = rest.querySelector("select[name=stage]").value;
  const found = await get(`/api/runs/${encodeURIComponent(name)}/log?stage=${stage}`, "json");
  // Snakemake removes the log just before it starts the stage again.
  if (!found?.text || found.text === log.textContent) return;
  const isAtEnd = isOther || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  log.textContent = found.text;
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

prepareLog();
repeat(look, LOOK);
