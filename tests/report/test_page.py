"""The page of a report: what is in its folder, and what a browser makes of it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vico_eval.errors import OutputError
from vico_eval.report import write_report
from vico_eval.report.endings.counts import endings
from vico_eval.report.figures.style import COLOURS
from vico_eval.report.page.kept import KeptSamples, sample_of
from vico_eval.report.page.scripts import as_script
from vico_eval.report.page.site import PageContent, write_page
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.scores.benchmarks import table_spec
from vico_eval.report.scores.count_run import count_run
from vico_eval.report.stats.loyalty import loyalty
from vico_eval.report.stats.sentences import comparison_sentences
from vico_eval.report.stats.side_by_side import measure
from vico_eval.report.stats.uncertainty import compare_with_baseline
from vico_eval.report.tables.layout import build_table, order_rows
from vico_eval.report.tables.numbers import tidy_numbers
from vico_eval.runs.read import read_run
from vico_eval.runs.results import Document, Run, TaskResult
from vico_eval.runs.schema import RunRecord

from .browser import Watched, chromium
from .conftest import RECORD, TINY_TASKS, account, sample, write_run

HOSTILE = '<script>window.hacked = true</script><img src=x onerror="window.hacked = true"> </script><!--'
TITLE = 'ViCO <img src=x onerror="window.hacked=true"> & co.'
HALF = "half \ud83d a pair\u2028 and a line"
LONG = "word " * 2000
MEDIA = {"tiny_read": "ab" * 8, "tiny_compare": "cd" * 8, "tiny_video": "ef" * 8}


def seen(task: str, doc_id: int, compressed: tuple[int, ...] = ()) -> dict:
    """An account: one picture of 2 x 2 tiles and a thumbnail; two of one tile; 64 frames; or none."""
    if task == "tiny_colour" and doc_id == 0:
        return account(0) | {"grids": []}
    grids = {"tiny_compare": [[1, 1, 1]] * 2, "tiny_video": [[1, 1, 1]] * 64}.get(task, [[2, 2, 5]])
    tiles = sum(grid[2] for grid in grids)
    media = f"{MEDIA[task][:-1]}{doc_id}" if task in MEDIA else "../../../etc/passwd"
    scores = [0.9 if place in compressed else 0.1 for place in range(tiles)]
    own = {"grids": grids, "compressed": compressed, "media": media, "p_compress": scores}
    return account(tiles, len(compressed)) | own


def lines(task: str, changes: dict[int, tuple[str, float]], compressed: tuple[int, ...] = ()) -> list[dict]:
    """Six documents of a task, right with the answer 7 but for the changes."""
    found = []
    for doc_id in range(6):
        answer, score = changes.get(doc_id, ("7", 1.0))
        line = sample(doc_id, score, counts=[{"account": seen(task, doc_id, compressed)}])
        found.append(line | {"filtered_resps": answer, "input": f"What <b>number</b> is {doc_id}? {HOSTILE}"})
    return found


def write_surrogates(folder: Path) -> None:
    """Puts half of a pair into an answer, which a file of UTF-8 can only have escaped."""
    (samples,) = folder.rglob("*_samples_tiny_read.jsonl")
    for path in (samples, samples.parents[1] / "answers.rank0.jsonl"):
        path.write_text(path.read_text("utf-8").replace("HALF", json.dumps(HALF)[1:-1]), encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Vanilla; two seeds of Random; ViCO with changed answers, a document that failed and no run on Video."""
    root = tmp_path_factory.mktemp("runs")
    for task, count in (("tiny_read", 1), ("tiny_compare", 2), ("tiny_video", 8)):
        for doc_id in range(6):
            for number in range(count):
                media = f"{MEDIA[task][:-1]}{doc_id}"
                place = 8 * number if task == "tiny_video" else number
                path = root / "previews" / media[:2] / f"{media}-{place}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 48), (40 * doc_id, 120, 90)).save(path)
    kept = {"previews": "../previews"}
    base = {"tiny_read": {2: ("wrong", 0.0), 3: ("wrong", 0.0)}}
    changed = {
        "tiny_read": {1: (HOSTILE, 0.0), 3: ("also wrong", 0.0), 4: (LONG, 1.0), 5: ("HALF", 1.0)},
        "tiny_bar": {0: ("8", 0.0)},
    }
    vanilla = {task: lines(task, base.get(task, {})) for task in TINY_TASKS}
    vico = {task: lines(task, changed.get(task, {}), (0, 3, 4)) for task in TINY_TASKS[:-2]}
    vico["tiny_compare"] = lines("tiny_compare", {}, (1,))
    vico["tiny_doc"][2] |= {"filtered_resps": "", "token_counts": [None], "exact_match": 0.0}
    folders = [
        (None, write_run(root / "vanilla", vanilla, system="vanilla", title="Vanilla", **kept)),
        (TITLE, write_run(root / "vico", vico, **kept)),
    ]
    for seed in (0, 1):
        random = {task: lines(task, {seed: ("other", 0.0)}) for task in TINY_TASKS}
        arguments = {"system": "random", "method_args": {"seed": seed}}
        folders.append(("Random", write_run(root / f"random{seed}", random, **arguments)))
    write_surrogates(root / "vico")
    failure = {"task": "tiny_doc", "split": "test", "doc_id": 2, "reason": f"no such image {HOSTILE}"}
    (root / "vico" / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    return folders


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory) -> Path:
    return write(runs, tmp_path_factory.mktemp("out") / "site").parent


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def watched(browser, site):
    found = Watched(browser, site)
    yield found
    found.close()


def write(runs, folder: Path, keep=None) -> Path:
    """The page of runs, by title and folder or as they are, as `write_report` makes it of what it has computed."""
    spec = table_spec("tiny")
    columns = [benchmark for benchmark in spec.benchmarks if keep is None or benchmark.title in keep]
    read = [own if isinstance(own, Run) else read_run(own) for _, own in runs]
    named = [(title or run.record.title, run) for (title, _), run in zip(runs, read, strict=True)]
    systems = order_rows({title: run.record.system for title, run in named}, spec.systems)
    measured = measure([count_run(title, run, columns) for title, run in named], columns)
    table = build_table(measured, columns, systems, caption=spec.caption, baseline="Vanilla")
    rows = list(table.summary.index)
    agreement = loyalty(measured, rows, table.columns, "Vanilla")
    uncertainty = compare_with_baseline(Draws(rows, columns_of(measured, rows, table.columns)), "Vanilla")
    samples = [
        {
            column.title: [sample_of(document) for task in column.tasks for document in run.tasks[task].documents]
            for column in columns
            if set(column.tasks) <= set(run.tasks)
        }
        for run in read
    ]
    content = PageContent(
        table=replace(table, comparison=comparison_sentences(uncertainty, agreement)),
        measured=measured,
        read=lambda number, title: samples[number][title],
        previews={place: run.folder / run.record.previews for place, run in enumerate(read) if run.record.previews},
        numbers=tidy_numbers(table, measured, systems, [""] * len(read), [""] * len(read)),
        uncertainty=uncertainty,
        loyalty=agreement,
        endings=endings(measured.cells, rows, table.columns),
    )
    return write_page(folder, content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def documents(page) -> list[str]:
    return page.eval_on_selector_all(".card", "cards => cards.map((card) => card.dataset.document)")


# The folder


def test_the_page_loads_nothing_from_elsewhere_and_has_nothing_inline(site):
    html = (site / "index.html").read_text("utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"<script(?! defer src=\"[a-z/]+\.js\"></script>)|<style|\sstyle=|\son[a-z]+=\"", html)
    text = b"".join(own for name, own in contents(site).items() if not name.endswith(".jpg")).decode()
    assert set(re.findall(r"\w+://[^\"'\s]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


def test_data_can_end_no_script_and_is_ascii():
    script = as_script("x", [HOSTILE, HALF, None])
    assert script.isascii()
    assert not set(b"<>&") & set(script)
    assert json.loads(script.decode().removeprefix('vicoPage.register("x", ').removesuffix(");\n"))[0] == HOSTILE


def test_a_page_is_written_the_same_again_replaces_an_earlier_one_and_spares_other_files(runs, site, tmp_path):
    before = contents(site)
    folder = tmp_path / "site"
    write(runs, folder)
    assert contents(folder) == before
    assert len([name for name in before if name.startswith("pictures/")]) == 6 * (1 + 2 + 8)
    (folder / "pictures" / "notes.txt").write_text("mine")
    (folder / "data" / "documents-9.js").write_text("old")
    write(runs[:1], folder, keep=["Compare"])
    after = contents(folder)
    assert sorted(name for name in after if name.startswith("data/")) == ["data/documents-0.js", "data/report.js"]
    assert {name.split("/")[1] for name in after if name.startswith("pictures/")} == {"cd", "notes.txt"}
    write(runs, folder)
    assert contents(folder) == before | {"pictures/notes.txt": b"mine"}


def test_a_preview_that_is_a_link_is_not_copied(tmp_path):
    secret = tmp_path / "secret" / "cd"
    secret.mkdir(parents=True)
    (secret.parent / "key").write_text("secret")
    previews = tmp_path / "previews" / "ab"
    previews.mkdir(parents=True)
    names = {task: f"{MEDIA[task][:-1]}0-0.jpg" for task in ("tiny_read", "tiny_compare")}
    (previews / f"{MEDIA['tiny_read'][:-1]}1-0.jpg").write_text("a picture")
    # A link in place of a picture; a folder that is one, with pictures of something else in it.
    (previews / names["tiny_read"]).symlink_to(secret.parent / "key")
    (secret / names["tiny_compare"]).write_text("secret")
    previews.with_name("cd").symlink_to(secret)
    tasks = {task: lines(task, {}) for task in TINY_TASKS}
    run = write_run(tmp_path / "vanilla", tasks, system="vanilla", title="Vanilla", previews="../previews")
    folder = write([(None, run)], tmp_path / "page", keep=["Read", "Compare"]).parent
    pictures = {name: own for name, own in contents(folder).items() if name.startswith("pictures/")}
    assert pictures == {f"pictures/ab/{MEDIA['tiny_read'][:-1]}1-0.jpg": b"a picture"}
    assert b"secret" not in b"".join(contents(folder).values())


def test_samples_are_kept_as_they_are_until_the_page_is_written(tmp_path):
    answers = ["half a pair: \ud83d", None, "two lines\nand é"]
    documents = [
        Document(doc_id=place, fields={}, account=None, answer=answer, question="<b>?")
        for place, answer in enumerate(answers)
    ]
    kept = KeptSamples(tmp_path, ["Read", "MMBench V1.1 / en"])
    kept.write(3, "MMBench V1.1 / en", documents)
    assert kept.read(3, "MMBench V1.1 / en") == [sample_of(document) for document in documents]
    with pytest.raises(OutputError, match="TMPDIR"):
        KeptSamples(tmp_path / "gone", ["Read"]).write(0, "Read", documents)


def test_a_page_that_fails_leaves_the_earlier_one(runs, tmp_path, monkeypatch):
    folder = tmp_path / "site"
    write(runs[:1], folder, keep=["Read"])
    before = contents(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vico_eval.report.page.site.shutil.copyfile", full)
    with pytest.raises(OutputError, match=r"No space left on device. Make room"):
        write(runs, folder)
    assert contents(folder) == before


def test_a_link_in_an_earlier_page_is_replaced_and_not_followed(runs, tmp_path):
    folder = tmp_path / "site"
    write(runs[:1], folder, keep=["Read"])
    (tmp_path / "mine").write_text("mine")
    picture = next((folder / "pictures").rglob("*.jpg"))
    for path in (picture, folder / "index.html"):
        path.unlink()
        path.symlink_to(tmp_path / "mine")
    write(runs[:1], folder, keep=["Read"])
    assert (tmp_path / "mine").read_text() == "mine"
    assert not picture.is_symlink()
    assert picture.read_bytes().startswith(b"\xff\xd8")


def test_a_folder_of_other_files_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(OutputError, match="The page can't be written to"):
            write_report([(None, tmp_path / "no run")], table="tiny", out=tmp_path / "out", html=folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_page_has_the_colours_of_the_pictures():
    css = (Path(as_script.__code__.co_filename).parent / "assets" / "page.css").read_text("utf-8")
    light = css[: css.index("@media")]
    assert re.findall(r"\.hue-\d \{ --hue: (#\w+); \}", light) == [colour.lower() for colour in COLOURS]


# The table


def test_the_table_sorts_by_click_and_by_keyboard_with_the_unknown_last(watched):
    page = watched.open()

    def order():
        return page.eval_on_selector_all("tbody tr[data-row] th", "heads => heads.map((head) => head.innerText.trim())")

    assert order() == ["Vanilla", "Random", TITLE]  # the table's own order
    read = page.locator("table.scores thead th").nth(1)
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
    cells = page.locator("tr[data-row='2'] td")
    assert cells.nth(0).inner_text().split() == ["66.7", "60%"]
    assert cells.nth(1).inner_text().split()[0] == "failed"
    assert cells.nth(8).inner_text().split() == ["–", "–"]
    same = page.locator("table.scores thead th", has_text="Same answers")
    assert not same.is_visible()
    page.get_by_label("Agreement with Vanilla").check()
    assert same.is_visible()
    assert page.locator("noscript").count() == 1
    assert "no such image <script>" in page.locator("details").first.text_content()


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
    # 3 of 5 tiles have 4 of 16 tokens: 45% saved; 4 of 6 right as with Vanilla.
    assert tip.splitlines()[0] == TITLE
    assert "100.0% of the score" in tip
    assert "45.0% of visual tokens saved" in tip
    page.locator("#plot-area .point[data-row='1']").press("Enter")
    assert page.locator("#filter-row").input_value() == "1"
    assert page.locator("tr.picked").inner_text().startswith("Random")
    assert "row=Random" in page.url
    assert page.evaluate("document.activeElement.dataset.row") == "1"
    front = page.locator("#plot-area .front").get_attribute("d")
    assert front.count("H") == 1  # Random retains more, ViCO saves more; Vanilla is beaten by both


def test_the_mouse_means_the_nearest_of_points_that_overlap(watched):
    page = watched.open()
    together = "([one, ...others]) => others.forEach((other, number) => Object.assign(other, {saved: one.saved, "
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
    assert "This document has no picture." in page.locator(".document").inner_text()
    page = watched.open(document="Video/tiny_video/0", row="Vanilla")
    assert page.locator(".picture").count() == 64
    assert page.locator(".picture img").count() == 8
    assert page.locator(".answers tbody tr").count() == 2  # ViCO was not run on it
    page = watched.open(document="Bar/tiny_bar/0")
    assert "kept no picture of this document" in page.locator(".document").inner_text()
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
    assert page.locator("#samples-note").inner_text() == "These runs kept no pictures."
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

    write([(None, run("Vanilla", 2)), (None, run("ViCO", 3))], tmp_path / "site", keep=["Read"])
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
