// The list of runs: filter as you type, sort, choose runs to compare, and follow changes.
import { get, parse, refreshTimes, repeat } from "./common.js";

const LOOK = 2000; // milliseconds between looks for changes

const table = document.querySelector("table.runs");
const body = table.tBodies[0];
const filter = document.querySelector("[data-filter]");
const shown = document.querySelector("[data-shown]");
const unread = document.querySelector("[data-unread]:not(table)");
const empty = document.querySelector("[data-empty]");
const compare = document.querySelector("#compare");
const chosen = document.querySelector("[data-chosen]");
const most = Number(chosen.textContent.match(/\d+/)[0]);

let revision = Number(table.dataset.revision);
// The server leaves out runs that don't match the address.
let isWhole = !filter.q.value && !filter.status.value;

// --- Filter ---------------------------------------------------------------------------------

function applyFilter() {
  const words = filter.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = filter.status.value;
  let n = 0;
  for (const row of body.rows) {
    const text = `${row.dataset.name} ${row.cells[7].dataset.value} ${row.dataset.status}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (status && row.dataset.status !== status);
    n += row.hidden ? 0 : 1;
  }
  const all = body.rows.length;
  const text = `${n === all ? all : `${n} of ${all}`} run${n === 1 ? "" : "s"}`;
  if (shown.textContent !== text) shown.textContent = text;
}

function remember() {
  const address = new URL(location.href);
  for (const name of ["q", "status", "sort", "descending"]) {
    const value = filter[name].value;
    const isUsual = value === "" || (name === "sort" && value === "run") || value === "false";
    if (isUsual) address.searchParams.delete(name);
    else address.searchParams.set(name, value);
  }
  history.replaceState(null, "", address);
}

filter.addEventListener("input", async () => {
  remember();
  if (!isWhole) await reload();
  applyFilter();
});
filter.addEventListener("submit", (event) => event.preventDefault());

// --- Sort -----------------------------------------------------------------------------------

const collator = new Intl.Collator("en", { numeric: true });

function applySort() {
  const heading = table.tHead.querySelector(`[data-column="${filter.sort.value}"]`);
  const down = filter.descending.value === "true";
  const place = heading.cellIndex;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const isNumber = !["run", "status", "dataset"].includes(heading.dataset.column);
  const value = (row) => row.cells[place].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    // Unknown values come last in both directions.
    if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
    const order = isNumber ? value(a) - value(b) : collator.compare(value(a), value(b));
    return (down ? -order : order) || collator.compare(a.dataset.name, b.dataset.name);
  });
  body.append(...rows);
}

table.tHead.addEventListener("click", (event) => {
  const heading = event.target.closest("th");
  if (!heading || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const isSame = filter.sort.value === heading.dataset.column;
  filter.descending.value = String(isSame && filter.descending.value !== "true");
  filter.sort.value = heading.dataset.column;
  applySort();
  remember();
});

// --- Changes --------------------------------------------------------------------------------

/** Put rows that the server rendered in place of those with the same names. */
function take(page) {
  const news = page.querySelector("table");
  const known = new Map([...body.rows].map((row) => [row.dataset.name, row]));
  let isNew = false;
  for (const row of [...news.tBodies[0].rows]) {
    const old = known.get(row.dataset.name);
    if (old) {
      row.querySelector("input").checked = old.querySelector("input").checked;
      if (old.contains(document.activeElement)) {
        // Keep the focus: replace only the cells that aren't focused.
        for (const [place, cell] of [...row.cells].entries()) {
          if (!old.cells[place].contains(document.activeElement)) old.cells[place].replaceWith(cell);
        }
        old.dataset.status = row.dataset.status;
      } else old.replaceWith(row);
    } else {
      body.append(row);
      isNew = true;
    }
  }
  revision = Number(news.dataset.revision);
  const n = Number(news.dataset.unread);
  unread.hidden = !n;
  if (n) unread.textContent = `${n.toLocaleString("en")} more are being read…`;
  empty.hidden = body.rows.length > 0 || n > 0;
  table.hidden = compare.hidden = body.rows.length === 0;
  return { isNew, n, nRuns: Number(news.dataset.runs), nChanged: news.tBodies[0].rows.length };
}

/** Get all rows again. */
async function reload() {
  const html = await get("/rows");
  if (html === null) return;
  const page = parse(html);
  const names = new Set([...page.querySelectorAll("tr")].map((row) => row.dataset.name));
  for (const row of [...body.rows]) if (!names.has(row.dataset.name)) row.remove();
  take(page);
  isWhole = true;
  applySort();
  applyFilter();
}

async function look() {
  const html = await get(`/rows?since=${revision}`);
  if (html === null) return 5 * LOOK;
  const page = parse(html);
  const isChanged = page.querySelector("tr") !== null;
  if (!isWhole) {
    // Only what's shown is followed until the filter changes.
    const names = new Set([...body.rows].map((row) => row.dataset.name));
    for (const row of [...page.querySelectorAll("tr")]) if (!names.has(row.dataset.name)) row.remove();
    take(page);
    return LOOK;
  }
  const { isNew, n, nRuns } = take(page);
  if (nRuns !== body.rows.length) await reload();
  else if (isNew) applySort();
  if (isNew || isChanged) applyFilter();
  refreshTimes();
  return n ? 100 : LOOK;
}

// --- Choose ---------------------------------------------------------------------------------

function count() {
  const n = body.querySelectorAll("input:checked").length;
  compare.classList.toggle("sticky", n > 0);
  compare.querySelector("button").disabled = n === 0 || n > most;
  chosen.textContent = n ? `${n} chosen${n > most ? `; choose up to ${most}` : ""}.` : `Choose up to ${most}.`;
}
body.addEventListener("change", count);

applyFilter();
count();
repeat(look, table.dataset.unread === "0" ? LOOK : 0);
