"""The notebook of the documentation: its cells run, and give what it shows."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebooks" / "quickstart.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def shown(cell):
    """What the notebook has beneath a cell, as text; None for a picture or nothing."""
    data = [output["data"] for output in cell["outputs"] if "image/png" not in output["data"]]
    return "".join(data[0]["text/plain"]) if data else None


def value_of(source, names):
    """What a cell gives: the value of its last line, where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def test_every_cell_gives_what_the_notebook_shows(tmp_path, monkeypatch):
    pd = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names = {}
    with pd.option_context("display.width", 80):
        for cell in CELLS:
            value = value_of("".join(cell["source"]), names)
            if shown(cell) is not None:
                assert repr(value) == shown(cell)
    assert sum(shown(cell) is not None for cell in CELLS) >= 5
    assert (tmp_path / "runs" / "tiny-limit20" / "report" / "page" / "index.html").is_file()


def test_the_notebook_has_no_messages_and_no_paths_of_a_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "/work/" not in text
    assert "/tmp/" not in text
    assert all(output["output_type"] == "execute_result" for cell in CELLS for output in cell["outputs"])
