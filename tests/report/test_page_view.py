"""What a browser makes of a report's page: its table, its plot and its documents."""

import json
import re

import pytest

from vico_eval.report import write_report
from vico_eval.runs.results import Document, Run, TaskResult
from vico_eval.runs.schema import RunRecord

from .browser import Watched
from .conftest import RECORD
from .site import HOSTILE, LONG, TITLE, documents, write_site

# The table


def test_the_table_sorts_by_click_and_by_keyboard_with_the_unknown_last(watched):
    page = watched.open()

    def order():
        return page.eval_on_selector_all("tbody tr[data-row] th", "heads => heads.map((head) => head.innerText.trim())")

    assert order() == ["Vanilla", "Random", TITLE]  # the table's own order
    read = page.locator("table.scores thead th", has_text=re.compile("^Read$"))
    read.locator("button").click()
    # Vanilla 4 of 6; Random 5 of 6; ViCO 4 of 6: ties in the table's order.
    assert (order(), read.get_attribute("aria-sort")) == (["Random", "Vanilla", TITLE], "descending")
    read.locator("button").press("Enter")
    assert (order(), read.get_attribute("aria-sort")) == (["Vanilla", TITLE, "Random"], "ascending")
    average = page.locator("table.scores thead th", has_text="Avg.")
    average.locator("button").click()
    assert (order()[-1], read.get_attribute("aria-sort")) == (TITLE, None)
    average.locator("button").click()
    assert (order()[-1], average.get_attribute("aria-sort")) == (TITLE, "ascending")


def test_the_table_has_ratios_beneath_scores_what_failed_and_agreement_when_asked(watched):
    page = watched.open()
    heads = page.locator("table.scores thead th").all_text_contents()
    cells = page.locator("tr[data-row='2'] > *")

    def shown(title):
        return cells.nth(heads.index(title)).inner_text().split()

    assert shown("Read") == ["66.7", "60%"]
    assert shown("Doc")[0] == "failed"
    assert shown("Video") == ["–", "–"]
    same = page.locator("table.scores thead th", has_text="Same answers")
    assert not same.is_visible()
    page.get_by_text("Columns and rows").first.click()
    page.get_by_label("Same answers").check()
    assert same.is_visible()
    assert page.locator("noscript").count() == 1
    assert "no such image <script>" in page.locator("details", has_text="What the numbers mean").text_content()


# The plot


def test_the_plot_shows_numbers_and_picks_the_row(watched):
    page = watched.open()
    assert page.locator("#plot-area .point").count() == 2  # ViCO has no average
    page.select_option("#plot-column", label="Read")
    points = page.locator("#plot-area .point")
    assert points.count() == 3
    vico = page.locator("#plot-area .point[data-row='2']")
    vico.focus()
    tip = page.locator("#plot-area .tip").inner_text()
    # 3 of 5 tiles have 4 of 16 tokens: 55% stay; 4 of 6 right as with Vanilla.
    assert tip.splitlines()[0] == TITLE
    assert "100.0% of the score" in tip
    assert "Visual tokens: 55.0%" in tip
    page.locator("#plot-area .point[data-row='1']").press("Enter")
    assert page.locator("#filter-row").input_value() == "1"
    assert page.locator("tr.picked").inner_text().startswith("Random")
    assert "row=Random" in page.url
    assert page.evaluate("document.activeElement.dataset.row") == "1"
    front = page.locator("#plot-area .front").get_attribute("d")
    assert front.count("H") == 1  # Random retains more, ViCO saves more; Vanilla is beaten by both


def test_the_mouse_means_the_nearest_of_points_that_overlap(watched):
    page = watched.open()
    together = "([one, ...others]) => others.forEach((other, number) => Object.assign(other, {shares: one.shares, "
    together += "retention: one.retention + 1.5 * (number + 1)}))"
    page.evaluate(f"({together})(vicoPage.data.report.plots.find((plot) => plot.column === 'Read').points)")
    page.select_option("#plot-column", label="Read")
    for row, title in enumerate(("Vanilla", "Random", TITLE)):
        page.locator("#plot-area").scroll_into_view_if_needed()
        box = page.locator(f"#plot-area .point[data-row='{row}'] .target").bounding_box()
        assert box["height"] >= 28  # the areas overlap, for the points are some pixels apart
        place = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*place)
        assert page.locator("#plot-area .tip").inner_text().splitlines()[0] == title
        page.mouse.click(*place)
        assert page.locator("#filter-row").input_value() == str(row)


# The samples


def test_a_flip_is_found_and_shown_and_its_answer_stays_text(watched):
    page = watched.open(benchmark="Read")
    page.select_option("#filter-outcome", "lost")
    assert documents(page) == ["Read/tiny_read/1"]
    page.locator(".card").click()
    answers = page.locator(".answers tbody tr")
    assert [row.split("\n")[0] for row in answers.all_inner_texts()] == ["Vanilla", "Random", TITLE]
    assert answers.nth(0).locator(".mark").get_attribute("aria-label") == "right"
    assert answers.nth(2).locator(".mark").get_attribute("aria-label") == "wrong"
    assert answers.nth(2).locator(".text").inner_text() == HOSTILE
    assert answers.nth(2).locator(".tag").inner_text() == "differs"
    assert page.locator(".words .text").nth(1).inner_text() == "7"
    assert HOSTILE in page.locator(".words .text").first.inner_text()
    assert page.evaluate("window.hacked") is None


def test_tiles_lie_over_the_picture_with_scores_and_the_compressed_ones_shaded(watched):
    page = watched.open(document="Read/tiny_read/1")
    grid = page.locator(".picture > .stage .tile")
    assert grid.all_inner_texts() == ["0.90", "0.10", "0.10", "0.90"]
    shaded = [tile.evaluate("tile => getComputedStyle(tile).backgroundColor") for tile in grid.all()]
    assert shaded[0] == shaded[3] == "rgba(0, 114, 178, 0.4)"
    assert shaded[1] == shaded[2] != shaded[0]
    assert page.locator(".thumbnail .tile.compressed").count() == 1
    picture, tiles = (page.locator(f".picture > .stage > {name}").bounding_box() for name in ("img", ".tiles"))
    assert picture == tiles
    assert picture["width"] / picture["height"] == pytest.approx(64 / 48, rel=0.01)
    assert page.locator(".tiling").inner_text() == f"{TITLE}: 3 of 5 tiles compressed, 44 visual tokens"
    page.locator(".answers .pick").first.click()
    assert page.locator(".tile.compressed").count() == 0
    assert "row=Vanilla" in page.url


def test_tiles_are_counted_on_through_several_pictures(watched):
    page = watched.open(document="Compare/tiny_compare/0")  # of two tiles, each a picture, the second is compressed
    pictures = page.locator(".picture")
    assert [picture.locator(".tile.compressed").count() for picture in pictures.all()] == [0, 1]
    assert [picture.locator(".score").inner_text() for picture in pictures.all()] == ["0.10", "0.90"]


def test_arrows_and_buttons_go_through_the_selection_and_back_returns_to_it(watched):
    page = watched.open(benchmark="Read", outcome="differ")
    assert documents(page) == [f"Read/tiny_read/{number}" for number in (1, 2, 3, 4, 5)]
    page.locator(".card").nth(1).click()
    page.wait_for_selector(".document")
    title = page.locator(".document h3")
    assert title.inner_text() == "Read 2"
    page.keyboard.press("ArrowRight")
    page.get_by_text("Read 3", exact=True).wait_for()
    page.get_by_label("Previous document").click()
    page.get_by_text("Read 2", exact=True).wait_for()
    linked = page.url
    page.go_back()
    page.wait_for_selector(".card")
    assert page.locator("#filter-outcome").input_value() == "differ"
    page.goto("about:blank")
    page.goto(linked)
    assert page.locator(".document h3").inner_text() == "Read 2"
    page.keyboard.press("Escape")
    page.wait_for_selector(".card")
    assert page.evaluate("document.activeElement.dataset.document") == "Read/tiny_read/2"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("gained", ["Read/tiny_read/2"]),
        ("wrong", ["Read/tiny_read/3"]),
        ("failed", ["Doc/tiny_doc/2"]),
        ("lost", ["Read/tiny_read/1", "Bar/tiny_bar/0"]),
    ],
)
def test_outcomes(watched, outcome, expected):
    page = watched.open(outcome=outcome)
    assert documents(page) == expected
    chosen = page.locator("#filter-outcome option:checked").inner_text()
    assert chosen.endswith(f"({len(expected)})")


def test_what_is_odd_is_shown_as_it_is(watched):
    page = watched.open(document="Read/tiny_read/4")
    long = page.locator(".answers tbody tr").nth(2).locator(".text")
    assert len(long.inner_text()) < 700
    long.get_by_role("button").click()
    assert long.text_content() == LONG
    page = watched.open(document="Read/tiny_read/5")
    assert "a pair\u2028 and a line" in page.locator(".answers tbody tr").nth(2).locator(".text").text_content()
    page = watched.open(document="Doc/tiny_doc/2")
    assert f"Failed: no such image {HOSTILE}" in page.locator(".answers").inner_text()
    page = watched.open(document="Colour/tiny_colour/0")
    assert "This document has no image." in page.locator(".document").inner_text()
    page = watched.open(document="Video/tiny_video/0", row="Vanilla")
    assert page.locator(".picture").count() == 64
    assert page.locator(".picture img").count() == 8
    assert page.locator(".answers tbody tr").count() == 2  # ViCO was not run on it
    page = watched.open(document="Bar/tiny_bar/0")
    assert "kept no image preview of this document" in page.locator(".document").inner_text()
    assert page.locator(".picture > .stage.bare .tile").count() == 4
    page = watched.open(document=f"{HOSTILE}/1", row="nobody", benchmark=HOSTILE, page="x", size="-1")
    assert page.locator(".card").count() == 24


def test_a_row_of_several_runs_shows_its_first(watched):
    page = watched.open(row="Random", outcome="lost", benchmark="Bar")
    assert documents(page) == ["Bar/tiny_bar/0"]  # the other seed has document 1 wrong
    assert "Random was run 2 times; its first run is shown." in page.locator("#samples-body").inner_text()


@pytest.mark.usefixtures("unsaved_pictures")
def test_runs_without_pictures_say_so(browser, tiny_run, tmp_path):
    runs = [(None, tiny_run("vanilla", 4, 0, title="Vanilla"))]
    report = write_report(runs, table="tiny", out=tmp_path / "out", html=tmp_path / "site")
    assert report.html == report.paths[-1] == tmp_path / "site" / "index.html"
    watched = Watched(browser, tmp_path / "site")
    page = watched.open()
    assert page.locator("#samples-note").inner_text() == "These runs kept no image previews."
    page.locator(".card").first.click()
    page.wait_for_selector(".document")
    assert page.locator(".stage").count() == 0
    watched.close()


def test_twenty_thousand_documents_are_shown_a_page_at_a_time(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("vico_eval.report.paired.draws.RESAMPLES", 250)  # intervals are not what this is about

    def run(name: str, period: int) -> Run:
        own = tuple(
            Document(
                doc_id=number, fields={"exact_match": float(number % period > 0)}, account=None, answer=f"{number}"
            )
            for number in range(20_000)
        )
        score = sum(document.fields["exact_match"] for document in own) / len(own)
        task = TaskResult(
            name="tiny_read",
            metrics={"exact_match,none": score},
            documents=own,
            num_available=len(own),
            version="1",
            settings={},
            results_path=tmp_path,
            samples_path=tmp_path,
        )
        record = RunRecord.model_validate_json(json.dumps(RECORD | {"system": name.lower(), "title": name}))
        return Run(folder=tmp_path, record=record, tasks={"tiny_read": task})

    write_site([(None, run("Vanilla", 2)), (None, run("ViCO", 3))], tmp_path / "site", keep=["Read"])
    watched = Watched(browser, tmp_path / "site")
    page = watched.open()

    def chunks() -> list[str]:
        return [name for name in watched.loaded if name.startswith("documents-")]

    assert chunks() == ["documents-0.js"]
    assert page.locator(".card").count() == 24
    assert page.locator("*").count() < 1000
    page.get_by_label("Last page").click()
    page.get_by_text("Page 834 of 834").wait_for()
    assert chunks() == ["documents-0.js", "documents-79.js"]
    assert page.locator(".card").count() == 20_000 % 24
    # Right with Vanilla and wrong with ViCO: odd multiples of 3.
    page.select_option("#filter-outcome", "lost")
    page.get_by_text("Page 1 of 139").wait_for()
    assert documents(page)[:3] == ["Read/tiny_read/3", "Read/tiny_read/9", "Read/tiny_read/15"]
    page.select_option("#filter-size", "48")
    page.get_by_text("Page 1 of 70").wait_for()
    assert page.locator(".card").count() == 48
    assert page.locator("*").count() < 1500
    watched.close()
