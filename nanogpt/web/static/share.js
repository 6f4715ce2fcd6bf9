// The settings of a generation as a link, a curl command, Python and a `nanogpt sample` command.
//
// settings: { model, other, prompt, max_tokens, temperature, top_k, top_p, min_p,
// repetition_penalty, seed, unknown, stop }. other: a second model to compare with, or "". unknown:
// what to do with characters that aren't in the vocabulary. stop: a list.

export const NUMBERS = [
  "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed",
];
// Those that the official client of OpenAI's API takes only in `extra_body`.
const EXTRA = ["top_k", "min_p", "repetition_penalty", "unknown"];
const UNKNOWN = ["error", "skip"];
// Linux allows 128 KiB for one argument of a command.
const LONGEST_ARGUMENT = 100_000;

// The body of a request to /v1/completions.
export function requestOf(settings) {
  const { other, stop, ...body } = settings;
  return stop.length ? { ...body, stop } : body;
}

// --- Links ---

export function fragmentOf(settings) {
  const parameters = new URLSearchParams();
  for (const name of ["model", "other", "prompt", ...NUMBERS, "unknown"])
    if (name === "prompt" || settings[name] !== "") parameters.append(name, settings[name]);
  for (const text of settings.stop) parameters.append("stop", text);
  return `#${parameters}`;
}

// The settings in a fragment; only those that it has.
export function settingsIn(fragment) {
  const parameters = new URLSearchParams(fragment.replace(/^#/, ""));
  const settings = {};
  for (const name of ["model", "other", "prompt"])
    if (parameters.has(name)) settings[name] = parameters.get(name);
  for (const name of NUMBERS) {
    const text = parameters.get(name)?.trim();
    if (text && Number.isFinite(Number(text))) settings[name] = Number(text);
  }
  if (UNKNOWN.includes(parameters.get("unknown"))) settings.unknown = parameters.get("unknown");
  if (parameters.size) settings.stop = parameters.getAll("stop").filter(Boolean);
  return settings;
}

// --- Stop strings in the form: one per line ---

const ESCAPES = { n: "\n", r: "\r", t: "\t", "\\": "\\" };

// A line may contain \n, \r, \t and \\. Any other backslash stands for itself.
export function readStops(text) {
  return text
    .split("\n")
    .filter(Boolean)
    .map((line) => line.replace(/\\([nrt\\])/g, (_, letter) => ESCAPES[letter]));
}

export function writeStops(stops) {
  const escaped = (text) =>
    text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t");
  return stops.map(escaped).join("\n");
}

// --- Commands ---

// A quoted here-document, in which a shell changes nothing. The body's lines start with a brace or
// a space, so none of them ends it.
export function curlOf(settings, origin, needsToken) {
  const body = plainJson(requestOf(settings), 2);
  const token = needsToken ? `  -H "Authorization: Bearer $NANOGPT_TOKEN" \\\n` : "";
  return (
    `curl -s ${quote(`${origin}/v1/completions`)} \\\n` +
    `  -H 'Content-Type: application/json' \\\n${token}  -d @- <<'END'\n${body}\nEND\n`
  );
}

export function pythonOf(settings, origin, needsToken) {
  const { stop, ...rest } = requestOf(settings);
  const plain = Object.entries(rest).filter(([name]) => !EXTRA.includes(name));
  if (stop) plain.push(["stop", stop]);
  const lines = plain.map(([name, value]) => `    ${name}=${pythonValue(value)},\n`);
  const extra = pythonValue(Object.fromEntries(EXTRA.map((name) => [name, settings[name]])));
  const key = needsToken ? `os.environ["NANOGPT_TOKEN"]` : `"none"`;
  return (
    `${needsToken ? "import os\n\n" : ""}from openai import OpenAI\n\n` +
    `client = OpenAI(base_url=${plainJson(`${origin}/v1`)}, api_key=${key})\n` +
    `completion = client.completions.create(\n${lines.join("")}    extra_body=${extra},\n)\n` +
    `print(completion.choices[0].text)\n`
  );
}

// For bash and zsh. The command prints the prompt, too. results: the directory of the runs, if it
// isn't the project's own. hasDrafts: whether the run's samples use drafts, which the server doesn't.
export function sampleOf(settings, results, hasDrafts) {
  const model = results ? `${results}/${settings.model}/model` : settings.model;
  const flags = {
    num_samples: 1,
    max_new_tokens: settings.max_tokens,
    temperature: settings.temperature,
    top_k: settings.top_k,
    top_p: settings.top_p,
    min_p: settings.min_p,
    repetition_penalty: settings.repetition_penalty,
    seed: settings.seed,
    unknown: settings.unknown,
    ...(hasDrafts ? { draft: 0 } : {}),
  };
  const words = [...Object.entries(flags), ...settings.stop.map((text) => ["stop", text])];
  const given = words.map(([name, value]) => `  --${name}=${quote(String(value))}`);
  const { prompt } = settings;
  const size = new TextEncoder().encode(prompt).length;
  const fits = size < LONGEST_ARGUMENT && !/^(FILE|LINES):|\0/.test(prompt);
  const start = fits ? `  --start=${quote(prompt)}` : '  --start="FILE:$prompt"';
  const lines = [`nanogpt sample ${quote(model)}`, ...given, start];
  const command = lines.join(" \\\n");
  return fits ? `${command}\n` : `${fileOf(prompt)}\n${command}\nrm "$prompt"\n`;
}

// Put a prompt into a file, because as a flag it would be too long or the name of a file.
function fileOf(prompt) {
  // A byte order mark at the start isn't part of a file's text.
  const content = prompt.replace(/^\ufeff/, "\ufeff\ufeff");
  const escaped = content.replace(/\\/g, "\\\\").replace(/\0/g, "\\0000");
  return `prompt=$(mktemp)\nprintf '%b' ${quoteSingle(escaped)} >"$prompt"`;
}

// JSON without invisible characters, except those that are part of emoji.
function plainJson(value, indent) {
  return JSON.stringify(value, null, indent).replace(
    /[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

// A string or a number in JSON is one in Python, too.
function pythonValue(value) {
  if (Array.isArray(value)) return `[${value.map(pythonValue).join(", ")}]`;
  if (typeof value !== "object") return plainJson(value);
  const entries = Object.entries(value).map(([name, one]) => `"${name}": ${pythonValue(one)}`);
  return `{${entries.join(", ")}}`;
}

// One word for a shell. Control characters, which a terminal would act on, become escapes.
export function quote(text) {
  if (/^[A-Za-z0-9_./:=@%+-]+$/.test(text)) return text;
  if (!/[\x01-\x1f\x7f]/.test(text)) return quoteSingle(text);
  const escaped = text.replace(/[\\'\x01-\x1f\x7f]/g, (character) => {
    const known = { "\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t" };
    return known[character] ?? `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`;
  });
  return `$'${escaped}'`;
}

function quoteSingle(text) {
  return `'${text.replace(/'/g, "'\\''")}'`;
}
