"""Who can use a report's page: by keyboard, by a screen reader, on a phone, in the dark."""

import pytest

from vico_eval.report.figures.style import COLOURS

from .browser import Watched, contrast, faint_words, findings
from .site import TITLE

VIEWS = {
    "table, plot and samples": {},
    "a search that found nothing": {"search": "nothing of it"},
    "a document": {"document": "Read/tiny_read/3"},
}


@pytest.fixture(params=[("light", 1440), ("dark", 390)], ids=["light, wide", "dark, a phone"])
def shown(request, browser, site):
    """The page in a theme and a width."""
    scheme, width = request.param
    size = {"width": width, "height": 900}
    found = Watched(browser, site, color_scheme=scheme, viewport=size)
    yield found
    found.close()


def focused(page):
    return page.evaluate("document.activeElement.dataset.focus")


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(shown, view):
    page = shown.open(**VIEWS[view])
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert findings(page) == []


def test_axe_and_the_contrast_of_drawings_can_find_something(watched):
    page = watched.open(plot="Read")
    page.evaluate("document.querySelector('nav a').style.color = '#999'")
    page.evaluate(
        "document.querySelector('#filter-row').parentElement.replaceWith(document.querySelector('#filter-row'))"
    )
    page.evaluate("document.querySelector('#plot-area .tick').style.fill = '#999'")
    assert [finding.split(":")[0] for finding in findings(page)] == ["color-contrast", "select-name"]
    assert len(faint_words(page, "#plot-area")) == 1
    assert contrast("rgb(255, 255, 255)", "rgb(0, 0, 0)") == pytest.approx(21)


def test_the_plot_can_be_read(shown):
    assert faint_words(shown.open(plot="Read"), "#plot-area") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_a_row_can_be_read(watched, scheme):
    watched.page.emulate_media(color_scheme=scheme)
    page = watched.open()
    colours = page.evaluate(
        """(count) => [...Array(count).keys()].map((hue) => {
            const name = document.body.appendChild(document.createElement("b"));
            name.className = `hue-${hue}`;
            name.setAttribute("class", `hue-${hue}`);
            name.style.color = "var(--hue)";
            return getComputedStyle(name).color;
        })""",
        len(COLOURS),
    )
    paper = page.eval_on_selector("#plot", "section => getComputedStyle(section).backgroundColor")
    assert len(set(colours)) == len(COLOURS)
    assert min(contrast(colour, paper) for colour in colours) >= 4.5


def test_a_phone_has_every_name_and_nothing_beside_its_window(browser, site):
    watched = Watched(browser, site)
    watched.page.set_viewport_size({"width": 390, "height": 800})
    for view in ({}, {"document": "Read/tiny_read/3"}):
        page = watched.open(**view, plot="Read")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        names = page.locator("#plot-area .legend li")
        assert names.all_inner_texts() == ["Vanilla", "Random", TITLE]
        for name in names.all():
            assert name.bounding_box()["x"] + name.bounding_box()["width"] <= 390
    watched.close()


@pytest.mark.parametrize("start", ["title", "row-1", "ArrowRight", "back", "choose"])
def test_arrows_keep_the_focus(watched, start):
    page = watched.open(document="Read/tiny_read/3", benchmark="Read")
    page.locator(f".document [data-focus='{start}']").focus()
    if start == "choose":
        page.keyboard.press("Escape")  # keys there are its own
        assert page.locator(".document h3").inner_text() == "Read 3"
        return
    page.keyboard.press("ArrowRight")
    page.get_by_text("Read 4", exact=True).wait_for()
    assert focused(page) == start
    page.keyboard.press("ArrowLeft")
    page.get_by_text("Read 3", exact=True).wait_for()
    assert focused(page) == start


def test_where_a_control_has_gone_the_documents_name_gets_the_focus(watched):
    page = watched.open(document="Read/tiny_read/4", benchmark="Read")
    page.locator(".document [data-focus='ArrowRight']").focus()
    page.keyboard.press("Enter")
    page.get_by_text("Read 5", exact=True).wait_for()
    assert focused(page) == "title"  # the last one: there is no next


def test_a_search_keeps_what_is_typed_while_its_results_change(watched):
    page = watched.open()
    field = page.get_by_label("Search", exact=True)
    field.press_sequentially("also wrong", delay=60)
    page.get_by_text("1 found in").first.wait_for()
    field.press("ArrowLeft")
    field.press("x")
    page.get_by_text("0 found in").first.wait_for()
    assert field.input_value() == "also wronxg"
    assert page.evaluate("document.activeElement.id") == "search"
