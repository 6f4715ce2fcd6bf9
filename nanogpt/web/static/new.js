// The form of a new run: it uploads a text if one is chosen, then defines and starts the run.

const form = document.getElementById("new");
const field = (id) => document.getElementById(id);
const settings = [...form.querySelectorAll("[data-setting]")];

field("dataset").addEventListener("change", showUpload);
field("run").addEventListener("change", showValues);
field("model.preset").addEventListener("change", showValues);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  train();
});
showUpload();

function showUpload() {
  field("upload").hidden = field("dataset").value !== "";
  showValues();
}

// Show the values that empty fields stand for: of the chosen run, of the dataset's own run, or of a
// new text.
async function showValues() {
  const run = field("run").value || field("dataset").value;
  const preset = field("model.preset").value;
  const response = await fetch(`/api/settings?${new URLSearchParams({ run, preset })}`);
  if (!response.ok) return;
  const values = await response.json();
  for (const one of settings) {
    const value = values[one.dataset.setting];
    if (value === undefined || (one === field("model.preset") && preset)) continue;
    if (one.tagName === "SELECT") one.options[0].textContent = value;
    else one.placeholder = value;
  }
}

async function train() {
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  report("");
  try {
    const dataset = field("dataset").value || (await upload());
    progress("Starting the training");
    const given = settings.filter((one) => one.value !== "");
    const started = await post("/api/runs", JSON.stringify({
      run: field("run").value,
      dataset,
      name: field("name").value,
      settings: Object.fromEntries(given.map((one) => [one.dataset.setting, one.value])),
    }), "application/json");
    location.assign(`/runs/${encodeURIComponent(started.run)}`);
  } catch (error) {
    progress("");
    report(error.message);
    button.disabled = false;
  }
}

// Upload the chosen file. Returns the name of its dataset.
async function upload() {
  const [file] = field("file").files;
  if (!file) throw new Error("choose a text, or a file to upload");
  const most = Number(field("file").dataset.most);
  if (file.size > most) throw new Error(`${file.name}: larger than ${most.toLocaleString("en")} bytes`);
  const text = await post(`/api/texts?name=${encodeURIComponent(nameOf(file))}`, file, "text/plain");
  // The text is a dataset now: a second try with other settings doesn't upload it again.
  const option = new Option(text.dataset, text.dataset, true, true);
  field("dataset").add(option);
  field("upload").hidden = true;
  return text.dataset;
}

// The name of a file's dataset; `text`, `text-2` and so on if nothing of the file's name can be kept.
function nameOf(file) {
  const stem = file.name.replace(/\.txt$/i, "").replace(/[^A-Za-z0-9._-]+/g, "_").replace(/^[._-]+/, "");
  if (stem) return stem;
  const taken = [...field("dataset").options].map((option) => option.value);
  let name = "text";
  for (let number = 2; taken.includes(name); number++) name = `text-${number}`;
  return name;
}

// XMLHttpRequest, since fetch doesn't report the progress of an upload.
function post(address, body, type) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.setRequestHeader("Content-Type", type);
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      if (event.lengthComputable && event.total > 1e6) {
        progress(`Uploading: ${Math.floor((100 * event.loaded) / event.total)}%`);
      }
    };
    request.onload = () => {
      if (request.status < 300) resolve(request.response);
      else reject(new Error(request.response?.error ?? `the server answered ${request.status}`));
    };
    request.onerror = () => reject(new Error("no answer from the server; check that `nanogpt serve` still runs, then try again"));
    request.send(body);
  });
}

function progress(text) {
  field("progress").textContent = text;
}

// Show a mistake, and go to the field that it's about.
function report(message) {
  field("problem").textContent = message;
  const fields = [...settings, field("name")];
  for (const one of fields) one.removeAttribute("aria-invalid");
  const name = message.split(": ")[0];
  const wrong = name === "name" ? field("name") : settings.find((one) => name === one.dataset.setting || name.endsWith(`.${one.dataset.setting}`));
  if (!wrong) return;
  wrong.setAttribute("aria-invalid", "true");
  wrong.closest("details")?.setAttribute("open", "");
  wrong.focus();
}
