"""The commands of docs/real-pictures.md work on a real photograph and on what a scanner makes of a page."""

import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from matplotlib import cbook
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs" / "real-pictures.md"


@pytest.fixture
def route(run):
    """Exit status, stdout and stderr."""
    return partial(run, "route")


def scores(out):
    return [float(score) for score in re.findall(r" (\d\.\d{4})  (?:compressed|kept)$", out, flags=re.MULTILINE)]


def test_a_photograph_that_matplotlib_ships(route, tmp_path):
    block = re.search(r"```bash\n(photo=.*?)```", DOCS.read_text(), re.DOTALL)[1]
    assignment, command = block.strip().splitlines()
    python, option, code = shlex.split(re.fullmatch(r"photo=\$\((.*)\)", assignment)[1])
    assert (python, option) == ("python", "-c")
    photo = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(photo).is_file()
    program, name, *arguments = [word.replace("$photo", photo) for word in shlex.split(command)]
    assert (program, name) == ("vico-eval", "route")
    status, out, _ = route(*arguments, "--out", tmp_path)
    assert status == 0
    # 512 x 600 px are nearest to 3 x 4 of the grids with at most 12 tiles; a thumbnail comes with them.
    assert "grace_hopper.jpg: 512 x 600 px, 3 x 4 tiles" in out
    assert len(scores(out)) == 13
    assert all(0 < score < 1 for score in scores(out))
    assert (tmp_path / "grace_hopper-route.png").is_file()


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK"])
def test_a_page_in_the_modes_of_scanners(route, tmp_path, mode):
    """scikit-image's `page.png` is grey; scans also come in black and white, with a palette, or for print."""
    page = tmp_path / ("page.tif" if mode == "CMYK" else "page.png")
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        photo.convert("RGB").resize((384, 191)).convert(mode).save(page)
    status, out, _ = route(page, "--checkpoint", "vico-tiny", "--out", tmp_path / "out")
    assert status == 0
    assert "384 x 191 px, 2 x 1 tiles" in out or "384 x 191 px, 4 x 2 tiles" in out
    assert all(0 < score < 1 for score in scores(out))


def test_the_docs_say_what_the_built_in_router_has_seen():
    assert "The built-in router has only seen drawn scenes" in DOCS.read_text()
