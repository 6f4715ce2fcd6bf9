"""The report in a browser: it needs no network, sorts, filters, and has two themes."""

import math
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page

from tests.browser.screens import DESKTOP, TELEPHONE

# The column of runs.csv for each heading on the page.
NUMBERS = [
    "val_loss_nats_per_token",
    "val_perplexity_per_token",
    "parameters",
    "training_flops",
    "mfu_percent",
]


def names(page: Page) -> list[str]:
    """Return the runs in the order of the table."""
    cells = page.locator("table.runs tbody tr:visible th")
    return cells.evaluate_all("cells => cells.map((cell) => cell.dataset.value)")


def click_heading(page: Page, column: str) -> None:
    page.locator(f'table.runs th[data-column="{column}"] button').click()


def test_the_table_agrees_with_runs_csv(open_page, report: Path) -> None:
    page, table = open_page(), pd.read_csv(report / "runs.csv")
    assert names(page) == list(table["run"])
    headings = page.locator("table.runs thead th")
    columns = headings.evaluate_all("headings => headings.map((one) => one.dataset.column)")
    cell = "(cell) => [cell.dataset.value, cell.innerText]"
    rows = page.locator("table.runs tbody tr").evaluate_all(
        f"rows => rows.map((row) => [...row.cells].map({cell}))"
    )
    assert len(columns) > 12
    for shown, (_, row) in zip(rows, table.iterrows(), strict=True):
        for column, (value, text) in zip(columns, shown, strict=True):
            if isinstance(row[column], str):
                assert value == row[column]
            elif math.isnan(row[column]):
                assert (value, text) == ("", "–")  # noqa: RUF001
            else:
                assert float(value) == row[column]
    place = columns.index("val_loss_nats_per_token") + 1
    losses = page.locator(f"table.runs tbody tr td:nth-child({place})").all_inner_texts()
    assert losses == [f"{loss:.4f}" for loss in table["val_loss_nats_per_token"]]


@pytest.mark.parametrize("column", NUMBERS)
def test_clicking_a_heading_sorts_by_its_numbers(open_page, report: Path, column: str) -> None:
    page, table = open_page(), pd.read_csv(report / "runs.csv")
    for ascending in (True, False):
        click_heading(page, column)
        wanted = table.sort_values(column, ascending=ascending, kind="stable", na_position="last")
        shown = table.set_index("run").loc[names(page), column]
        assert shown.to_list() == pytest.approx(wanted[column].to_list(), nan_ok=True)
        heading = page.locator(f'th[data-column="{column}"]')
        assert heading.get_attribute("aria-sort") == ("ascending" if ascending else "descending")


def test_names_sort_in_natural_order(open_page) -> None:
    page = open_page()
    click_heading(page, "run")
    shown = names(page)
    assert shown == sorted(shown, key=lambda name: name.replace("run-2", "run-02"))
    assert shown.index("run-2") < shown.index("run-10")


def test_only_one_heading_is_marked_as_sorted(open_page) -> None:
    page = open_page()
    for column in ("parameters", "run", "val_bits_per_byte"):
        click_heading(page, column)
        assert page.locator("th[aria-sort]").count() == 1


def test_headings_work_with_the_keyboard(open_page) -> None:
    page = open_page()
    page.locator('th[data-column="val_loss_nats_per_token"] button').focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=ascending]").get_attribute("data-column") == (
        "val_loss_nats_per_token"
    )


def test_runs_can_be_filtered_by_name(open_page) -> None:
    page = open_page()
    page.locator("[data-filter]").fill("MIDI")
    assert names(page) == [f"sizes.model-midi.seed-{seed}" for seed in (1, 2, 3)]
    assert page.locator("[data-shown]").inner_text() == "3 of 16"
    page.locator("[data-filter]").fill("")
    assert len(names(page)) == 16


def test_a_filter_of_several_words_finds_names_with_all_of_them(open_page) -> None:
    page = open_page()
    page.locator("[data-filter]").fill("seed-2 mi")
    assert names(page) == [f"sizes.model-{name}.seed-2" for name in ("micro", "mini", "midi")]


@pytest.mark.parametrize(
    ("by", "headings"),
    [
        ("dataset", ["play: 9", "prose: 7"]),
        ("sweep", ["sizes: 9", "run-2: 1", "run-10: 1", "old-0: 1"]),
        ("seeds", ["sizes.model-micro: 3", "sizes.model-mini: 3", "sizes.model-midi: 3"]),
    ],
)
def test_runs_can_be_grouped(open_page, by: str, headings: list[str]) -> None:
    page = open_page()
    everything = names(page)
    page.locator("[data-group]").select_option(by)
    shown = page.locator("table.runs tr.heading").all_inner_texts()
    assert shown[: len(headings)] == headings
    assert sorted(run_names(page)) == sorted(everything)
    page.locator("[data-group]").select_option("nothing")
    assert names(page) == everything


def run_names(page: Page) -> list[str]:
    """Return the runs in the order of the table, without the headings of groups."""
    cells = page.locator("table.runs tbody tr:not(.heading) th")
    return cells.evaluate_all("cells => cells.map((cell) => cell.dataset.value)")


def test_the_best_of_each_group_can_be_shown(open_many) -> None:
    page = open_many()
    click_heading(page, "val_loss_nats_per_token")
    page.locator("[data-group]").select_option("dataset")
    page.locator("[data-most]").select_option("10")
    headings = page.locator("table.runs tr.heading").all_inner_texts()
    assert headings == ["play: 10 of 60", "prose: 10 of 60"]
    best = [f"{dataset}.{i}" for dataset in ("play", "prose") for i in range(10)]
    assert run_names(page) == best
    assert page.locator("[data-shown]").inner_text() == "20 of 120"


def test_the_first_100_runs_are_shown_until_all_are_chosen(open_many) -> None:
    page = open_many()
    assert len(names(page)) == 100
    assert page.locator("[data-shown]").inner_text() == "100 of 120"
    page.locator("[data-filter]").fill("prose.59")
    assert names(page) == ["prose.59"]
    page.locator("[data-filter]").fill("")
    page.locator("[data-most]").select_option("all")
    assert len(names(page)) == 120
    assert page.locator("[data-shown]").inner_text() == ""


def test_many_runs_are_sorted_before_the_first_are_shown(open_many) -> None:
    page = open_many()
    for _ in range(2):
        click_heading(page, "val_loss_nats_per_token")
    assert names(page)[:2] == ["play.59", "prose.59"]


def test_all_of_many_runs_are_readable_without_scripts(browser, many_runs: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((many_runs / "index.html").as_uri())
    assert page.locator("table.runs tbody tr:visible").count() == 120
    context.close()


def color(page: Page, of: str) -> str:
    return page.evaluate(f"getComputedStyle(document.body).{of}")


def lightness(page: Page, of: str) -> float:
    """Return the brightness of a color on the page, from 0 for black to 1 for white."""
    channels = color(page, of).removeprefix("rgb(").removesuffix(")").split(",")
    return sum(map(float, channels)) / 765


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_reader_and_can_be_switched(open_page, scheme: str) -> None:
    page = open_page(scheme)
    dark = scheme == "dark"
    for _ in range(3):
        assert (lightness(page, "backgroundColor") < 0.2) == dark
        assert (lightness(page, "color") > 0.8) == dark
        ink = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
        assert ink == color(page, "color"), "charts have the color of the text"
        page.locator("[data-switch]").click()
        dark = not dark


def test_the_theme_is_remembered(open_page) -> None:
    page = open_page("light")
    page.locator("[data-switch]").click()
    page.reload()
    assert lightness(page, "backgroundColor") < 0.2


def test_one_loss_chart_is_shown_and_another_can_be_chosen(open_page) -> None:
    page = open_page()
    shown = page.locator(".loss-chart:visible")
    assert shown.count() == 1
    for axis in ("optimizer steps", "seconds of training", "FLOPs of training", "tokens seen"):
        page.locator(".over label", has_text=axis).click()
        assert shown.count() == 1
        assert shown.locator("svg text", has_text=axis).count() == 1


@pytest.mark.parametrize("viewport", [DESKTOP, TELEPHONE], ids=["desktop", "telephone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen(open_page, screenshot, viewport, scheme: str) -> None:
    page = open_page(scheme, viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    screenshot(page, f"{scheme}-{viewport['width']}")


def test_every_navigation_link_has_a_target(open_page) -> None:
    page = open_page()
    links = page.locator("nav a")
    assert links.count() == 8
    for link in links.all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_the_page_is_readable_without_scripts(browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((report / "index.html").as_uri())
    assert page.locator("table.runs tbody tr").count() == 16
    assert page.locator(".loss-chart:visible").count() == 1
    page.locator(".over label", has_text="optimizer steps").click()
    assert page.locator(".loss-steps").is_visible()
    context.close()
