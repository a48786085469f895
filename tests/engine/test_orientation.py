"""A photo is upright however it comes in, and once only."""

import io
import struct
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image, ImageOps

from vico_eval.engine.media import load_image
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import ImageInput, Message, Request, Text
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.tiny.tokenizer import build_tokenizer

PHOTO = Path(__file__).parent.parent / "golden" / "media" / "17.jpg"
ORIENTATION = 0x0112

# How each of EXIF's numbers says that stored rows and columns are to be shown.
SHOWN = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def pixels(image):
    return np.asarray(image).tolist()


def lying(orientation, kind="PNG", mode="RGB"):
    """Bytes of a picture of 3 x 2 px, and its stored pixels in RGB."""
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue(), np.asarray(image.convert("RGB"))


def decoded_by_datasets(content):
    return datasets.Image().decode_example({"bytes": content, "path": None})


def test_the_same_photo_on_every_way_in():
    upright = ImageOps.exif_transpose(Image.open(PHOTO))
    assert (Image.open(PHOTO).size, upright.size) == ((160, 80), (80, 160))
    content = PHOTO.read_bytes()
    for source in (PHOTO, str(PHOTO), content, Image.open(PHOTO), decoded_by_datasets(content), upright):
        assert pixels(load_image(source)) == pixels(upright)
        assert pixels(load_image(load_image(source))) == pixels(upright)  # turned once
    # A task that converts pictures keeps their notes.
    assert pixels(load_image(Image.open(PHOTO).convert("RGB"))) == pixels(upright)


def test_the_same_tiles_from_a_harness_and_from_a_file():
    preprocessor = Preprocessor(build_tokenizer(), InternVLPrompting(InternVLSettings(tile_size=28)))

    def tiles(source):
        request = Request("a", (Message("user", (ImageInput(source), Text("?"))),))
        return preprocessor(request)

    file, harness = tiles(PHOTO), tiles(decoded_by_datasets(PHOTO.read_bytes()))
    assert file.grids == harness.grids == ((2, 4, 9),)
    assert file.media == harness.media


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_in_every_format_that_has_it(kind, orientation):
    content, stored = lying(orientation, kind)
    assert pixels(load_image(content)) == SHOWN[orientation](stored).tolist()
    assert pixels(load_image(Image.open(io.BytesIO(content)))) == SHOWN[orientation](stored).tolist()
    assert pixels(load_image(decoded_by_datasets(content))) == SHOWN[orientation](stored).tolist()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_every_mode_is_turned(mode):
    content, stored = lying(6, "PNG", mode)
    assert pixels(load_image(content)) == np.rot90(stored, -1).tolist()


def test_the_picture_that_was_given_stays_as_it_was():
    image = Image.open(PHOTO)
    load_image(image)
    assert (image.size, image.getexif()[ORIENTATION]) == ((160, 80), 6)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_says_nothing(orientation):
    content, stored = lying(orientation)
    assert pixels(load_image(content)) == stored.tolist()


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0", b"II*\0"])
def test_broken_notes_say_nothing(exif):
    stored = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    image = Image.fromarray(stored)
    image.info["exif"] = exif
    assert pixels(load_image(image)) == stored.tolist()


def test_broken_notes_beside_an_orientation_do_not_hide_it():
    # Two entries: the orientation, 6, and a text that claims to lie behind the end of the file.
    entries = struct.pack("<HHHII", 2, 0x010F, 2, 900, 4000) + struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0)
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    image.info["exif"] = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + struct.pack("<I", 0)
    assert load_image(image).size == (2, 3)
