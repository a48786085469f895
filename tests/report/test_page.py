"""The page of a report: what is in its folder."""

import json
import re
from pathlib import Path

import pytest

from vico_eval.errors import OutputError
from vico_eval.report import write_report
from vico_eval.report.figures.style import COLOURS
from vico_eval.report.page.kept import KeptSamples, sample_of
from vico_eval.report.page.scripts import as_script
from vico_eval.runs.results import Document

from .conftest import TINY_TASKS, write_run
from .site import HALF, HOSTILE, MEDIA, contents, lines, write_site


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


def test_a_page_is_written_the_same_again_replaces_an_earlier_one_and_spares_other_files(page_runs, site, tmp_path):
    before = contents(site)
    folder = tmp_path / "site"
    write_site(page_runs, folder)
    assert contents(folder) == before
    assert len([name for name in before if name.startswith("pictures/")]) == 6 * (1 + 2 + 8)
    (folder / "pictures" / "notes.txt").write_text("mine")
    (folder / "data" / "documents-9.js").write_text("old")
    write_site(page_runs[:1], folder, keep=["Compare"])
    after = contents(folder)
    assert sorted(name for name in after if name.startswith("data/")) == [
        *("data/documents-0.js", "data/report.js", "data/table.js")
    ]
    assert {name.split("/")[1] for name in after if name.startswith("pictures/")} == {"cd", "notes.txt"}
    write_site(page_runs, folder)
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
    folder = write_site([(None, run)], tmp_path / "page", keep=["Read", "Compare"]).parent
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
    kept.write(3, "Read", documents, ["ocr", *[""] * (len(documents) - 1)])
    assert [sample.category for sample in kept.read(3, "Read")] == ["ocr", *[None] * (len(documents) - 1)]
    with pytest.raises(OutputError, match="TMPDIR"):
        KeptSamples(tmp_path / "gone", ["Read"]).write(0, "Read", documents)


def test_a_page_that_fails_leaves_the_earlier_one(page_runs, tmp_path, monkeypatch):
    folder = tmp_path / "site"
    write_site(page_runs[:1], folder, keep=["Read"])
    before = contents(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vico_eval.report.page.site.shutil.copyfile", full)
    with pytest.raises(OutputError, match=r"No space left on device. Make room"):
        write_site(page_runs, folder)
    assert contents(folder) == before


def test_a_link_in_an_earlier_page_is_replaced_and_not_followed(page_runs, tmp_path):
    folder = tmp_path / "site"
    write_site(page_runs[:1], folder, keep=["Read"])
    (tmp_path / "mine").write_text("mine")
    picture = next((folder / "pictures").rglob("*.jpg"))
    for path in (picture, folder / "index.html"):
        path.unlink()
        path.symlink_to(tmp_path / "mine")
    write_site(page_runs[:1], folder, keep=["Read"])
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
