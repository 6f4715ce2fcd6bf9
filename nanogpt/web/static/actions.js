// Buttons that stop or continue a run's training: <button data-act="stop" data-run="NAME">.
// The result is announced in the page's element with data-action-result. A section with data-jobs
// lists the trainings that were started from the page.

const POLL = 2000; // milliseconds
const jobs = document.querySelector("[data-jobs]");
if (jobs) showJobs();

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const { act, run } = button.dataset;
  const shown = document.querySelector("[data-action-result]");
  button.disabled = true;
  try {
    const response = await fetch(`/api/runs/${encodeURIComponent(run)}/${act}`, { method: "POST" });
    const answer = await response.json();
    shown.textContent = answer.error ?? answer.message ?? (act === "stop" ? "Stopping" : "Started");
  } catch {
    shown.textContent = "no answer from the server; check that `nanogpt serve` still runs, then try again";
  }
  button.disabled = false;
});

async function showJobs() {
  try {
    const response = await fetch("/api/jobs");
    if (response.ok) {
      const rows = (await response.json()).reverse().map(row);
      jobs.hidden = rows.length === 0;
      const focused = document.activeElement?.dataset?.run;
      jobs.querySelector("tbody").replaceChildren(...rows);
      if (focused) rows.map((one) => one.querySelector("button")).find((one) => one?.dataset.run === focused)?.focus();
    }
  } catch {
    // The next look may succeed.
  }
  setTimeout(showJobs, POLL);
}

function row(job) {
  const link = Object.assign(document.createElement("a"), {
    href: `/runs/${encodeURIComponent(job.run)}`,
    textContent: job.run,
  });
  const isActive = ["queued", "running"].includes(job.state);
  const name = isActive ? "stop" : "resume";
  const button = Object.assign(document.createElement("button"), {
    type: "button",
    textContent: isActive ? "Stop" : "Continue",
    hidden: ["stopping", "done"].includes(job.state),
  });
  Object.assign(button.dataset, { act: name, run: job.run });
  button.setAttribute("aria-label", `${button.textContent} ${job.run}`);
  const cells = [["th", link], ["td", job.state], ["td", button], ["td", job.message]];
  const line = document.createElement("tr");
  line.append(...cells.map(([kind, content]) => {
    const cell = document.createElement(kind);
    cell.className = "text";
    cell.append(content);
    return cell;
  }));
  return line;
}
