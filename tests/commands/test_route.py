"""`vico-eval route`: what it prints and draws is what an answer's account says."""

import json
import re
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from vico_eval import paths
from vico_eval.engine.model import load

TINY = {
    "vico": {"pretrained": "vico-tiny"},
    "image_vir": {"pretrained": "vico-tiny"},
    "vanilla_vir": {"pretrained": "vico-tiny-base", "flash_from": "vico-tiny"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A page of 4 x 3 tiles, of which some are compressed, and a picture of one tile."""
    folder = tmp_path_factory.mktemp("images")
    documents = pd.read_parquet(paths.tasks_dir() / "tiny" / "data" / "test-doc.parquet")
    (folder / "page.png").write_bytes(documents["image_1"][163]["bytes"])
    Image.new("RGB", (50, 50), "white").save(folder / "plain.png")
    return [folder / "page.png", folder / "plain.png"]


@pytest.fixture
def route(run):
    """Exit status, stdout and stderr."""
    return partial(run, "route")


def tiles(out):
    """Place, score and decision of each printed tile."""
    found = re.findall(r"^ *(thumbnail|\d+  +\d+) +(\d\.\d{4})  (compressed|kept)$", out, flags=re.MULTILINE)
    return [(place.split(), float(score), decision == "compressed") for place, score, decision in found]


@pytest.mark.parametrize("method", TINY)
def test_the_numbers_are_those_of_an_answer(route, tmp_path, images, method):
    own = {"device": "cpu"} | {name: value for name, value in TINY[method].items() if name != "pretrained"}
    text = ",".join(f"{name}={value}" for name, value in own.items())
    checkpoint = TINY[method]["pretrained"]
    options = ("--checkpoint", checkpoint, "--method", method, "--model-args", text, "--out", tmp_path)
    status, out, _ = route(*images, *options)
    assert status == 0
    model = load(checkpoint, method, **own)
    for image, block in zip(images, re.split(r"^(?=\w+\.png: )", out, flags=re.MULTILINE)[1:], strict=True):
        account = model.ask("What?", images=[image], max_new_tokens=1).account
        printed = tiles(block)
        assert block.startswith(f"{image.name}: ")
        assert [score for _, score, _ in printed] == pytest.approx(account.p_compress, abs=6e-5)
        assert sum(compressed for *_, compressed in printed) == account.compressed_tiles
        counts = f"{account.visual_tokens:,} of {account.visual_tokens_uncompressed:,} visual tokens"
        assert f"{account.compressed_tiles} of {account.tiles} tile" in block
        assert counts in block
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page-route.png", "plain-route.png"]


def test_without_an_image_a_page_that_ships_with_the_package_is_drawn(route, tmp_path):
    status, out, _ = route("--out", tmp_path, "--model-args", "device=cpu", "--json")
    assert status == 0
    (found,) = json.loads(out)
    assert (found["columns"], found["rows"], len(found["tiles"])) == (4, 3, 13)
    assert 0 < sum(tile["compressed"] for tile in found["tiles"]) < 13
    assert sum(tile["visual_tokens"] for tile in found["tiles"]) < found["visual_tokens_uncompressed"]
    assert found["picture"] == str(tmp_path / "page-route.png")
    assert (tmp_path / "page-route.png").is_file()


def test_a_photo_is_drawn_upright(route, tmp_path):
    photo = Path(__file__).parent.parent / "golden" / "media" / "17.jpg"  # of 160 x 80 px, to be turned by 90 degrees
    _, out, _ = route(photo, "--checkpoint", "vico-tiny", "--out", tmp_path, "--model-args", "device=cpu")
    assert out.startswith("17.jpg: 80 x 160 px, 2 x 4 tiles\n")


def test_tiles_are_named_row_by_row_and_limits_are_those_given(route, tmp_path, images):
    # 224 x 168 px is 4 x 3 tiles of 56 px; of at most five tiles, 4 x 1 to 1 x 5, the square is next to 4:3.
    options = ("--checkpoint", "vico-tiny", "--out", tmp_path, "--model-args")
    _, out, _ = route(images[0], *options, "device=cpu")
    assert [place for place, *_ in tiles(out)[3:6]] == [["1", "4"], ["2", "1"], ["2", "2"]]
    assert tiles(out)[-1][0] == ["thumbnail"]
    assert 0 < sum(compressed for *_, compressed in tiles(out)) < 13
    _, out, _ = route(images[0], *options, "device=cpu,max_tiles=5,absolute_threshold=0.0")
    assert [place for place, *_ in tiles(out)] == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"], ["thumbnail"]]
    assert all(compressed for *_, compressed in tiles(out))


def test_a_grid_that_the_method_cuts_its_own_way_is_drawn(route, tmp_path):
    # 120 x 30 px lie nearest to 4 x 1 tiles of 56 px, of which 3 x 1 would do: the nearest grid of at most three.
    Image.new("RGB", (120, 30), "white").save(tmp_path / "strip.png")
    options = (tmp_path / "strip.png", "--checkpoint", "vico-tiny", "--out", tmp_path, "--model-args", "device=cpu")
    for method, grid in (("vico", "4 x 1"), ("vico+rvtc_edge", "3 x 1"), ("single_tile+vico", "1 x 1")):
        status, out, _ = route(*options, "--method", method)
        assert status == 0
        assert out.startswith(f"strip.png: 120 x 30 px, {grid} tiles\n")
        columns = int(grid[0])
        places = [["1", str(column + 1)] for column in range(columns)]
        assert [place for place, *_ in tiles(out)] == places + [["thumbnail"]] * (columns > 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png does not exist"),
        (["page.png", "text.png"], "text.png is not in a supported format"),
        (["page.png", "--checkpoint", "vico-tiny-base"], "'vico-tiny-base' has no low connector"),
        (["page.png", "--checkpoint", "vico-smal"], "vico-smal"),
        (["page.png", "--method", "fastv"], "has no router, .*: image_vir, vanilla_vir, vico"),
        (["page.png", "--method", "vanilla_vir"], "needs flash_from="),
        (["page.png", "--model-args", "pretrained=a"], "--checkpoint sets"),
        (["page.png", "--model-args", "max_tile=4"], "did you mean 'max_tiles'"),
        (["page.png", "--model-args", "tiles=2"], "expected columns x rows"),
        (["page.png", "page.png"], "Several images would be drawn into"),
        (["page.png", "page-route.png", "--out", "."], "page-route.png would be drawn over"),
    ],
)
def test_what_cannot_be_drawn_is_said(route, tmp_path, monkeypatch, images, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("page.png", "page-route.png"):
        (tmp_path / name).write_bytes(images[0].read_bytes())
    (tmp_path / "text.png").write_text("no image")
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", "vico-tiny"]
    status, out, err = route(*arguments)
    assert (status, out) == (1, "")
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not list(tmp_path.glob("route/*"))
    assert (tmp_path / "page-route.png").read_bytes() == images[0].read_bytes()


@pytest.mark.parametrize("arguments", [["--table", "3"], ["--out", "pictures", "--limit", "3"]])
def test_wrong_usage_ends_with_2(route, arguments):
    status, out, err = route(*arguments)
    assert (status, out) == (2, "")
    assert "Usage:" in err
