"""Measure how fast the report on many runs opens in a browser and answers.

    python benchmarks/report_page.py                a sweep of 1,000 runs on two datasets
    python benchmarks/report_page.py --runs=100 --picture=report.png

Runs are made up: sizes, learning rates and five seeds. Prints the size of the page; the time until
it's parsed and until it's loaded; and the times of a letter in the filter, of groups, of showing
all rows, and of a sort, each until it's drawn. Times are the best of some rounds, beside the
processor time of the page's main thread, which doesn't depend on what else the machine does. Needs
Chromium.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.report.page import write_report  # noqa: E402
from nanogpt.report.runs import read_runs  # noqa: E402
from tests.made_runs import make_run, write_ngram  # noqa: E402

ROUNDS = 5
SEEDS = 5
SIZES = (1, 2, 4, 6)
# Runs code in the page, and waits until the result is drawn.
UNTIL_DRAWN = """code => new Promise(done => {
  const start = performance.now();
  eval(code);
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
ACTIONS = {
    "a letter in the filter": ("filter", "s"),
    "groups": ("group", "dataset"),
    "all rows": ("most", ""),
}
CHOOSE = """const control = document.querySelector('[data-%s]'); control.value = '%s';
  control.dispatchEvent(new Event('input'))"""
SORT = "document.querySelector('th[data-column=val_loss_nats_per_token] button').click()"


def make_report(root: Path, n_runs: int) -> Path:
    """Write a report on made-up runs."""
    runs = []
    for dataset in ("play", "prose"):
        write_ngram(root, dataset, [1.2, 0.9])
    for number in range(n_runs):
        group, seed = divmod(number, SEEDS)
        place, size = divmod(group, len(SIZES))
        dataset, rate = ("play", "prose")[place % 2], place // 2
        name = f"{dataset}.n_layer-{SIZES[size]}.matrix_lr-{rate}.seed-{seed}"
        loss = 0.9 / SIZES[size] ** 0.3 + 0.02 * rate + seed / 300
        train = {"seed": seed, "matrix_lr": 0.001 * (rate + 1)}
        model = {"n_layer": SIZES[size]}
        runs.append(make_run(root, name, dataset, loss, model=model, train=train, bench=seed == 0))
    write_report(read_runs(runs), root / "report")
    return root / "report/index.html"


def open_report(page: Page, path: Path) -> dict[str, float]:
    """Open the report. Returns milliseconds by what they measure."""
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri())
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    metrics = client.send("Performance.getMetrics")["metrics"]
    cpu = next(one["value"] for one in metrics if one["name"] == "TaskDuration")
    found = {
        "parsed": timing["domContentLoadedEventEnd"],
        "loaded": timing["loadEventEnd"],
        "processor time of loading": 1000 * cpu,
    }
    for name, choice in ACTIONS.items():
        found[name] = page.evaluate(UNTIL_DRAWN, CHOOSE % choice)
    found["a sort of all rows"] = page.evaluate(UNTIL_DRAWN, SORT)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--picture", type=Path, help="save a picture of the page here")
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        path = make_report(Path(directory), arguments.runs)
        print(f"size: {path.stat().st_size / 1e6:.1f} MB", flush=True)
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        rounds = []
        for _ in range(ROUNDS):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            rounds.append(open_report(page, path))
            page.close()
        for name in rounds[0]:
            print(f"{name}: {min(found[name] for found in rounds):.0f} ms")
        if arguments.picture:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri())
            page.screenshot(path=arguments.picture, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
