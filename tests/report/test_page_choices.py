"""What a reader chooses on a report's page: documents by text, rows and categories; rows, columns and axes; files."""

import csv
import io
import re

import pytest

from vico_eval.report import write_report
from vico_eval.report.page.kept import Sample, sample_of
from vico_eval.runs.results import Document
from vico_eval.runs.schema import AnswerSeconds

from .browser import Watched
from .site import HOSTILE, TITLE, documents, write_site

CATEGORIES = ('odd <img src=x onerror="window.hacked=true">', "even")


def with_more(benchmark: str, own: Sample) -> Sample:
    """Categories of one benchmark, as runs will say them, replies, times, and a prompt that two rows don't share."""
    if benchmark != "Read":
        return own
    own = own._replace(category=CATEGORIES[int(own.doc_id) % 2 == 0], seconds=0.125)
    if own.answer == "also wrong":
        own = own._replace(reply=f"<think>hmm</think>also wrong {HOSTILE}", question="Another prompt")
    return own


@pytest.fixture(scope="module")
def full(browser, page_runs, tmp_path_factory):
    """The page with all of it, in files of a few documents, and a column of cost that was asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vico_eval.report.page.site.CHUNK_DOCUMENTS", 6)
        folder = tmp_path_factory.mktemp("full") / "site"
        write_site(page_runs, folder, change=with_more, asked=["operations"])
    return folder


@pytest.fixture
def more(browser, full):
    found = Watched(browser, full)
    yield found
    found.close()


def read(*numbers: int) -> list[str]:
    return [f"Read/tiny_read/{number}" for number in numbers]


def test_right_in_one_row_and_wrong_in_another_goes_with_other_filters_and_into_the_address(watched):
    # Of Read, Vanilla has 2 and 3 wrong, Random 0, ViCO 1 and 3.
    page = watched.open(benchmark="Read")
    page.select_option("#filter-right", label="Random")
    assert documents(page) == read(1, 2, 3, 4, 5)
    page.select_option("#filter-wrong", label=TITLE)
    assert documents(page) == read(1, 3)
    assert page.locator(".card").first.locator(".said").count() == 3  # Vanilla, ViCO and Random
    page.select_option("#filter-outcome", "lost")
    assert documents(page) == read(1)
    page = watched.open(benchmark="Read", right=TITLE, wrong="Vanilla")
    assert documents(page) == read(2)
    assert page.locator("#filter-right option:checked").inner_text() == TITLE


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ({"fails": "1"}, read(0, 1, 2, 3)),
        ({"fails": "2"}, read(3)),
        ({"fails": "right"}, read(4, 5)),
        ({"fails": "wrong"}, []),
        ({"fails": "wrong", "without": "Random"}, read(3)),
        ({"fails": "right", "without": "Random"}, read(0, 4, 5)),
        ({"fails": "1", "benchmark": "Doc"}, ["Doc/tiny_doc/0", "Doc/tiny_doc/2"]),  # the latter failed
        ({"fails": "4"}, read(0, 1, 2, 3, 4, 5)),  # there are three rows
    ],
)
def test_documents_by_how_many_rows_are_wrong(watched, view, expected):
    assert documents(watched.open(**{"benchmark": "Read", **view})) == expected


def test_categories_are_a_filter_where_documents_have_some(watched, more):
    assert watched.open().locator("#filter-category").count() == 0
    page = more.open()
    page.select_option("#filter-category", label=CATEGORIES[0])
    assert documents(page) == read(1, 3, 5)
    page.reload()
    page.wait_for_selector(".card")
    assert documents(page) == read(1, 3, 5)
    page.locator(".card").first.click()
    page.wait_for_selector(".document")
    assert CATEGORIES[0] in page.locator(".bar").inner_text()
    assert page.evaluate("window.hacked") is None
    page = more.open(benchmark="Doc")
    assert page.locator("#filter-category").count() == 0


@pytest.mark.parametrize(
    ("words", "expected", "where"),
    [
        ("ALSO wrong", read(3), TITLE),
        ("number</b> is 4", None, "Prompt"),
        ("Read 5", read(5), "Document"),
        ("<think>hmm", read(3), TITLE),
        ("nothing of it", [], None),
    ],
)
def test_text_is_found_wherever_it_stands(more, words, expected, where):
    page = more.open(search=words)
    page.get_by_role("status").get_by_text("documents").wait_for()
    found = documents(page)
    assert found == expected if expected is not None else len(found) == 8  # ViCO was not run on Video
    hits = page.locator(".card .hit").all_inner_texts()
    assert all(hit.startswith(f"{where}: ") and words.lower() in hit.lower() for hit in hits)
    assert len(hits) == len(found)


def test_a_search_is_typed_goes_with_filters_and_leads_through_what_it_found(more):
    page = more.open(benchmark="Read")
    page.get_by_label("Search", exact=True).fill("wrong")
    page.get_by_text("2 found in 6 of 6 documents").wait_for()
    assert documents(page) == read(2, 3)
    assert "search=wrong" in page.url
    page.select_option("#filter-outcome", "differ")
    page.get_by_text("in 5 of 5 documents").wait_for()
    page.locator(".card").first.click()
    page.wait_for_selector(".document")
    assert "1 of 2 in the selection" in page.locator(".bar").inner_text()
    page.keyboard.press("ArrowRight")
    page.get_by_text("2 of 2 in the selection").wait_for()


def test_what_is_found_is_shown_while_a_search_goes_on_which_can_be_stopped(more):
    page = more.open(benchmark="Read")
    # The sixth file, of Colour, is slow.
    page.evaluate(
        """() => {
            const load = vicoPage.chunks.all;
            const wait = (chunk) => new Promise((resolve) => (window.release = () => resolve(load(chunk))));
            vicoPage.chunks.all = (chunk) => (chunk === 5 ? wait(chunk) : load(chunk));
        }"""
    )
    page.select_option("#filter-benchmark", "")
    page.get_by_label("Search", exact=True).fill("wrong")
    page.get_by_text("2 found in 30 of 48 documents").wait_for()
    assert documents(page) == read(2, 3)
    assert page.get_by_label("Documents searched").is_visible()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("status").get_by_text("stopped").wait_for()
    page.evaluate("window.release()")
    page.get_by_text("2 found in 36 of 48 documents, stopped").wait_for()
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("2 found in 48 of 48 documents").wait_for()
    assert page.get_by_role("button", name="Stop").count() == 0


def test_columns_and_rows_are_chosen_for_table_plot_and_documents_and_stay_in_the_address(more):
    page = more.open()
    heads = page.locator("table.scores thead th:visible")
    assert heads.all_inner_texts()[1:8] == [
        *("Avg.", "95% interval", "Verdict", "Difference", "Visual tokens", "Prefill TFLOP", "Read")
    ]
    page.locator("#choose-table summary").click()
    benchmarks = page.get_by_role("group", name="Benchmarks")
    benchmarks.get_by_label("All", exact=True).uncheck()
    benchmarks.get_by_label("Bar").check()
    page.get_by_role("checkbox", name="KV MiB").check()
    assert page.evaluate("document.activeElement.dataset.focus").startswith("Costs-")
    page.get_by_role("group", name="Rows").first.get_by_label("Random").uncheck()
    expected = ["Avg.", "95% interval", "Verdict", "Difference", "Visual tokens", "Prefill TFLOP", "KV MiB", "Bar"]
    page.reload()
    page.wait_for_selector(".card")
    assert heads.all_inner_texts()[1:] == expected
    assert page.locator("table.scores tbody tr:visible").count() == 2
    page.select_option("#plot-column", label="Bar")
    assert page.locator("#plot-area .point").count() == 2
    page.locator(".card").first.click()
    page.wait_for_selector(".document")
    assert page.locator(".answers tbody tr").count() == 2
    page.locator(".document .choose summary").click()
    page.locator(".document .choose").get_by_label("Seconds").uncheck()
    page.reload()
    page.wait_for_selector(".document")
    assert page.locator(".answers thead th").all_inner_texts() == [
        *("Method", "Answer", "Score", "Visual tokens", "Compressed tiles")
    ]


def test_the_table_is_saved_as_csv_and_latex_as_it_is_shown(more):
    page = more.open(without="Random", column="Difference")
    page.locator("table.scores thead th button", has_text="Avg.").click()  # without an average, ViCO comes last

    def saved(name):
        with page.expect_download() as waiting:
            page.get_by_label(f"Table as {name}").click()
        return waiting.value.path().read_text("utf-8")

    lines = list(csv.reader(io.StringIO(saved("CSV"))))
    assert lines[0][:6] == ["Method", "Avg.", "95% interval", "Verdict", "Visual tokens", "Prefill TFLOP"]
    assert [line[0] for line in lines[1:]] == ["Vanilla", TITLE, f"{TITLE}, compressed tiles"]
    place = lines[0].index("Read")
    assert [line[place] for line in lines[1:]] == ["66.7", "66.7", "60%"]
    latex = saved("LaTeX")
    rows = [line.split(" & ") for line in latex.splitlines() if line.endswith(r"\\")]
    assert {len(row) for row in rows} == {len(lines[0])}
    assert (
        rows[2][0].strip()
        == r"ViCO \textless{}img src=x onerror={\char34}window.hacked=true{\char34}\textgreater{} \& co."
    )
    assert rows[3][place] == r"\textit{60\%}"
    assert "Random" not in latex


def test_verdicts_are_in_sight(more):
    more.page.set_viewport_size({"width": 1440, "height": 900})
    page = more.open()
    assert page.locator("table.scores").bounding_box()["width"] > 1100
    for cell in page.locator("table.scores td.words").all():
        box = cell.bounding_box()
        assert box["x"] + box["width"] <= page.locator("#table").bounding_box()["width"]


def test_the_plot_has_every_axis_that_is_known(more):
    page = more.open(plot="Read")
    titles = page.locator("#plot-axis option").all_inner_texts()
    assert titles == ["Visual tokens", "Prefill TFLOP", "KV MiB"]
    page.select_option("#plot-axis", label="Prefill TFLOP")
    assert page.locator("#plot-area svg text", has_text="Prefill TFLOP, % of Vanilla").count() == 1
    assert "over=Prefill+TFLOP" in page.url
    (label,) = [
        re.search(r"Prefill TFLOP: ([\d.]+)%", point)[1]
        for point in page.eval_on_selector_all(".point[data-row='2']", "all => all.map((one) => one.ariaLabel)")
    ]
    # Five tiles of 300, three low: 4 layers' costs follow from 44 of 80 visual tokens and 20 of text.
    page.select_option("#plot-axis", label="Visual tokens")
    own = page.evaluate("vicoPage.data.report.plots.find((plot) => plot.column === 'Read').points[2].shares")
    assert (own["tokens"], round(own["prefill_tflop"], 1)) == (55, float(label))


def test_a_document_has_replies_prompts_and_times_of_each_row(more):
    page = more.open(document="Read/tiny_read/3")
    vico = page.locator(".answers tbody tr").nth(2)
    assert not vico.get_by_text("<think>").is_visible()
    vico.get_by_text("Raw reply").click()
    assert vico.get_by_text("<think>").inner_text() == f"<think>hmm</think>also wrong {HOSTILE}"
    vico.get_by_text("Its own prompt").click()
    assert vico.get_by_text("Another prompt").is_visible()
    assert vico.locator("[data-name^='s, share of its batch']").inner_text() == "0.125"
    assert page.locator(".answers tbody tr").nth(0).get_by_text("Raw reply").count() == 0
    assert "a batch's time is divided evenly" in page.locator(".answers caption").inner_text()


def test_what_is_kept_of_a_document_has_its_reply_and_its_time():
    seconds = tuple(AnswerSeconds(reading=9, encoding=0.1, own=own) for own in (0.2, 0.3))
    document = Document(doc_id=0, fields={}, account=None, answer="B", said=("I say B",), seconds=seconds)
    assert (sample_of(document).reply, sample_of(document).seconds) == ("I say B", 0.7)
    assert sample_of(document._replace(said=("B",), seconds=None))[-3:] == (None, None, None)


def test_the_page_says_what_produced_each_row(watched):
    page = watched.open()
    section = page.locator("#provenance")
    titles = section.locator("summary").all_inner_texts()
    assert titles == ["In all rows", "Vanilla", "Random, run 1 of 2", "Random, run 2 of 2", TITLE]
    shared = section.locator("details").first.inner_text()
    for words in ("vico-tiny", "ab" * 32, "python -m lmms_eval --model vico_internvl", "2.15.0", "lmms-eval"):
        assert words in shared
    second = section.locator("details").nth(3)
    second.locator("summary").click()
    assert second.locator("dl").first.inner_text().split() == ["seed", "1"]


@pytest.mark.usefixtures("unsaved_pictures")
def test_columns_of_cost_that_a_report_is_asked_for_are_shown_at_first(page_runs, tmp_path):
    html = tmp_path / "site"
    write_report(page_runs, table="tiny", out=tmp_path / "out", html=html, columns_of_cost=["cache"])
    heads = re.findall(r'<th scope="col"( hidden)?><button type="button">([^<]*)', (html / "index.html").read_text())
    is_shown = {title: not hidden for hidden, title in heads}
    assert (is_shown["KV MiB"], is_shown["Prefill TFLOP"]) == (True, False)
