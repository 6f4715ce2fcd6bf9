// The playground: generate text with one or two models, and look into it.

import { Generation, refusal } from "./generation.js";
import * as share from "./share.js";
import { listenToTokens } from "./tips.js";
import { showTokens } from "./tokenizing.js";

const byId = (id) => document.getElementById(id);
const form = byId("form");
const fields = form.elements;
const PRESET = [...share.NUMBERS, "unknown", "stop"];
const known = new Set(); // names of models
const runSettings = new Map(); // by model
const withDrafts = new Set(); // models whose run uses drafts, for the command line
let running = []; // generations
let preset = ""; // the settings that the form got from a run, as text

// --- Settings ---

function currentSettings() {
  const settings = { model: fields.model.value, other: fields.other.value };
  settings.prompt = fields.prompt.value;
  for (const name of share.NUMBERS) settings[name] = fields[name].valueAsNumber;
  settings.unknown = fields.unknown.value;
  settings.stop = share.readStops(fields.stop.value);
  return settings;
}

function fill(settings) {
  for (const name of ["model", "other"]) {
    if (!(name in settings)) continue;
    const isListed = [...fields[name].options].some(({ value }) => value === settings[name]);
    if (!isListed) fields[name].append(new Option(settings[name]));
    fields[name].value = settings[name];
  }
  for (const name of ["prompt", ...share.NUMBERS, "unknown"])
    if (name in settings) fields[name].value = settings[name];
  if (settings.stop) fields.stop.value = share.writeStops(settings.stop);
}

// What a preset sets, except the seed.
function presetFields() {
  const { model, other, prompt, seed, ...settings } = currentSettings();
  return JSON.stringify(settings);
}

// The settings of a run's samples, as the form names them.
async function settingsOf(model) {
  if (!runSettings.has(model)) {
    const response = await fetch(`/v1/models/${encodeURIComponent(model)}`).catch(() => null);
    if (!response?.ok) return {};
    const { settings } = await response.json();
    settings.max_tokens = Math.min(settings.max_new_tokens, fields.max_tokens.max);
    runSettings.set(model, Object.fromEntries(PRESET.map((name) => [name, settings[name]])));
    if (settings.draft) withDrafts.add(model);
  }
  return runSettings.get(model);
}

async function usePreset({ keepSeed = false } = {}) {
  const model = fields.model.value;
  const before = presetFields();
  const { seed, ...settings } = known.has(model) ? await settingsOf(model) : {};
  // Another model may have been chosen meanwhile, or a setting changed.
  if (model !== fields.model.value || before !== presetFields()) return;
  fill(settings);
  preset = presetFields();
  if (seed !== undefined && !keepSeed) fill({ seed });
}

// Follow another run's preset, unless the settings were changed.
function changeModel() {
  if (preset === presetFields()) usePreset({ keepSeed: true });
}

async function openLink() {
  const { model, ...settings } = share.settingsIn(location.hash);
  if (model) {
    fill({ model });
    await usePreset();
  }
  fill(settings);
  const unknown = [model, settings.other].find((name) => name && !known.has(name));
  if (unknown) showError(`no model \`${unknown}\`; choose another one`);
  showTokens(form);
}

async function listModels() {
  const response = await fetch("/v1/models");
  if (!response.ok) throw new Error(await refusal(response));
  const { data } = await response.json();
  for (const { id } of data) known.add(id);
  for (const select of [fields.model, fields.other])
    select.append(...data.map(({ id }) => new Option(id)));
  if (!data.length) showError("no trained models yet; train one with `nanogpt train`");
}

async function start() {
  try {
    await listModels();
  } catch (error) {
    showError(`can't list the models: ${error.message}`);
  }
  await usePreset();
  await openLink();
  form.dataset.ready = "";
}

// --- Generation ---

function showError(message) {
  byId("error").textContent = message;
}

function setRunning(isRunning) {
  byId("generate").disabled = isRunning;
  byId("stop-button").disabled = !isRunning;
}

function showInAddress(settings) {
  try {
    history.replaceState(null, "", share.fragmentOf(settings));
  } catch {
    // Some browsers refuse very long addresses.
  }
}

async function generate() {
  if (running.length || !form.reportValidity()) return;
  const { other, ...settings } = currentSettings();
  showInAddress({ other, ...settings });
  showError("");
  byId("finished").textContent = "";
  const names = [settings.model, ...(other ? [other] : [])];
  const sections = names.map((name) => {
    const section = byId("column").content.firstElementChild.cloneNode(true);
    section.querySelector("h2").textContent = name;
    return section;
  });
  byId("columns").replaceChildren(...sections);
  const hadFocus = document.activeElement === byId("generate");
  setRunning(true);
  if (hadFocus) byId("stop-button").focus();
  running = sections.map((section, i) => new Generation(section, { ...settings, model: names[i] }));
  const errors = await Promise.all(running.map((generation) => generation.run()));
  const failed = names.flatMap((name, i) => {
    if (!errors[i]) return [];
    return other ? `${name}: ${errors[i]}` : errors[i];
  });
  showError([...new Set(failed)].join("; "));
  byId("finished").textContent = running
    .map((generation) => `${generation.settings.model}: ${generation.summary}. ${generation.text}`)
    .join("\n");
  running = [];
  const hasFocus = document.activeElement === byId("stop-button");
  setRunning(false);
  if (hasFocus) byId("generate").focus();
}

function stop() {
  for (const generation of running) generation.stop();
}

// --- Copies ---

async function copy(kind) {
  const settings = currentSettings();
  const needsToken = "needsToken" in form.dataset;
  const texts = {
    link: () => location.href.replace(/#.*/s, "") + share.fragmentOf(settings),
    curl: () => share.curlOf(settings, location.origin, needsToken),
    python: () => share.pythonOf(settings, location.origin, needsToken),
    sample: () =>
      share.sampleOf(settings, form.dataset.results, withDrafts.has(settings.model)),
  };
  const text = texts[kind]();
  byId("copy").textContent = text;
  byId("copy").hidden = false;
  try {
    await navigator.clipboard.writeText(text);
    byId("copied").textContent = settings.other && kind !== "link"
      ? `Copied, for ${settings.model}.`
      : "Copied.";
  } catch {
    // Not permitted, or the page came over HTTP from another machine.
    getSelection().selectAllChildren(byId("copy"));
    byId("copied").textContent = "Selected; copy it with Ctrl+C.";
  }
}

// --- Events ---

form.addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate();
  } else if (event.key === "Escape") {
    stop();
  }
});
byId("stop-button").addEventListener("click", stop);
byId("preset").addEventListener("click", () => usePreset());
byId("new-seed").addEventListener("click", () => {
  fields.seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
});
fields.model.addEventListener("change", changeModel);
byId("colors").addEventListener("change", (event) => {
  byId("columns").classList.toggle("colored", event.target.checked);
  byId("legend").hidden = !event.target.checked;
});
byId("copies").addEventListener("click", (event) => {
  const kind = event.target.dataset.copy;
  if (kind) copy(kind);
});
addEventListener("hashchange", openLink);
for (const name of ["toggle", "input", "change"])
  byId("tokens").addEventListener(name, () => showTokens(form));
for (const name of ["prompt", "model", "unknown"])
  fields[name].addEventListener("input", () => showTokens(form));
listenToTokens(byId("columns"), byId("tip"));
listenToTokens(byId("tokens-text"), byId("tip"));
start();
