"""Image preprocessing settings in the files beside `config.json`.

In the `-HF` layout, transformers' processor uses them. InternVL's own code and this package's don't read them, but
their normalisation is still the one of training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

from PIL import Image

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.config import VicoInternVLConfig, check_tiles
from vico_eval.families.internvl.tiling import PIXEL_MEAN, PIXEL_STD

PROCESSOR = "processor_config.json"
IMAGE_PROCESSOR = "preprocessor_config.json"


def apply_processor_files(folder: Path, config: VicoInternVLConfig, *, is_hf: bool) -> None:
    """Copy the limits on tiles to `config`, and reject settings with other pixels than `tiling`.

    `crop_to_patches` is ignored, because transformers' InternVL processor tiles images regardless of it.

    Args:
        folder: the checkpoint's folder; each file may be missing.
        config: the checkpoint's configuration.
        is_hf: whether it has transformers' layout.

    Raises:
        CheckpointError: a file can't be read, or a setting isn't supported; the message names both.
    """
    processor = _read(folder / PROCESSOR)
    nested = processor.get("image_processor")  # the section that transformers 5 writes and prefers
    file, settings = (
        (PROCESSOR, nested) if isinstance(nested, dict) else (IMAGE_PROCESSOR, _read(folder / IMAGE_PROCESSOR))
    )
    place = folder / file
    _require(place, settings, "image_mean", PIXEL_MEAN)
    _require(place, settings, "image_std", PIXEL_STD)
    if not is_hf:
        return
    for step in ("do_resize", "do_rescale", "do_normalize"):
        _require(place, settings, step, True)
    _require(place, settings, "rescale_factor", 1 / 255)
    _require(place, settings, "resample", int(Image.Resampling.BICUBIC))
    if settings.get("size") is not None:
        size = settings["size"]
        sides = list(size.values()) if isinstance(size, dict) else [size]
        _require(place, {"size": sides}, "size", [config.tile_size] * len(sides))
    _require(folder / PROCESSOR, processor, "image_seq_length", config.num_high_tokens)
    config.min_tiles = settings.get("min_patches") or config.min_tiles
    config.max_tiles = settings.get("max_patches") or config.max_tiles
    check_tiles(config)


def released_processor(tile_size: int) -> dict[str, Any]:
    """Return the content of `preprocessor_config.json` for a checkpoint in the released layout.

    Args:
        tile_size: side of a tile in pixels.
    """
    return {
        "crop_size": tile_size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
        "resample": int(Image.Resampling.BICUBIC),
        "size": tile_size,
    }


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} can't be read as JSON: {error}. Download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} has no settings; expected a JSON object. Download it again.")
    return values


def _require(file: Path, settings: Mapping[str, Any], name: str, expected: Any) -> None:
    """Require a setting's value; missing ones are accepted."""
    given = settings.get(name)
    if given is not None and not _is_close(given, expected):
        raise CheckpointError(
            f"{file} has {name} {given!r}; supported is {expected!r}, as in every InternVL 2 to 3.5 checkpoint. "
            "The model would see other pixels than it was trained with."
        )


def _is_close(given: Any, expected: Any) -> bool:
    if isinstance(expected, (list, tuple)):
        return isinstance(given, list) and len(given) == len(expected) and all(map(_is_close, given, expected))
    return isinstance(given, (int, float)) and isclose(given, expected, abs_tol=1e-6)
