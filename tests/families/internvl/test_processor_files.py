"""The files beside config.json: what they say of pictures is followed or refused."""

import json

import pytest

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.processor_files import apply_processor_files

# As every -HF release has it, in the words of transformers 4.5x.
RELEASED = {
    "crop_to_patches": False,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225],
    "max_patches": 12,
    "min_patches": 1,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 448, "width": 448},
}
# As the releases with code of their own have it; that code reads none of it.
OF_CODE = {
    "crop_size": 448,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 448,
}


@pytest.fixture
def apply(tmp_path):
    """Writes the files and applies them to a configuration of 448 px tiles."""

    def apply(images=None, processor=None, *, is_hf=True):
        for name, values in (("preprocessor_config.json", images), ("processor_config.json", processor)):
            if values is not None:
                (tmp_path / name).write_text(values if isinstance(values, str) else json.dumps(values))
        config = VicoInternVLConfig()
        apply_processor_files(tmp_path, config, is_hf=is_hf)
        return config.min_tiles, config.max_tiles

    return apply


def test_the_files_of_releases_change_nothing(apply):
    assert apply(is_hf=True) == apply(is_hf=False) == (1, 12)
    assert apply(RELEASED, {"image_seq_length": 256}) == (1, 12)
    assert apply(OF_CODE, is_hf=False) == (1, 12)


def test_limits_on_tiles_are_those_of_transformers_processor(apply):
    assert apply(RELEASED | {"min_patches": 2, "max_patches": 6}) == (2, 6)
    # Newer files hold it nested, which then counts.
    assert apply(RELEASED, {"image_processor": RELEASED | {"max_patches": 4}}) == (1, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_mean": [0.48145466, 0.4578275, 0.40821073]}, r"image_mean \[0\.48145466, .*supported is \(0\.485"),
        ({"image_std": [0.5, 0.5, 0.5]}, "image_std"),
        ({"image_mean": 0.5}, "image_mean 0.5"),
        ({"do_resize": False}, "do_resize False; supported is True"),
        ({"do_rescale": False}, "do_rescale False"),
        ({"do_normalize": False}, "do_normalize False"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"resample": 2}, "resample 2; supported is 3"),
        ({"size": {"height": 384, "width": 384}}, r"size \[384, 384\]; supported is \[448, 448\]"),
        ({"min_patches": 9, "max_patches": 6}, "at least 9 and at most 6 tiles"),
    ],
)
def test_other_pixels_are_refused(apply, changed, message):
    with pytest.raises(CheckpointError, match=message):
        apply(RELEASED | changed)
    with pytest.raises(CheckpointError, match=message):
        apply(None, {"image_processor": RELEASED | changed})


def test_another_number_of_tokens_is_refused(apply):
    with pytest.raises(CheckpointError, match=r"processor_config\.json has image_seq_length 64; supported is 256"):
        apply(RELEASED, {"image_seq_length": 64})


def test_another_normalisation_is_refused_in_every_layout(apply):
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json has image_mean \[0\.5, 0\.5, 0\.5\]"):
        apply(OF_CODE | {"image_mean": [0.5] * 3}, is_hf=False)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_file_is_named(apply, content):
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json (can't be read as JSON|has no settings)"):
        apply(content)


@pytest.mark.parametrize("is_hf", [False, True])
def test_a_checkpoint_is_looked_at_with_its_files(layouts, tmp_path, is_hf):
    if is_hf:
        layouts.build_hf(tmp_path, "qwen3")
    else:
        layouts.build_released(tmp_path)
    side = find_checkpoint(str(tmp_path)).config.tile_size
    images = RELEASED | {"size": {"height": side, "width": side}, "max_patches": 5}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    assert find_checkpoint(str(tmp_path)).config.max_tiles == (5 if is_hf else 12)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images | {"image_std": [1, 1, 1]}))
    with pytest.raises(CheckpointError, match="image_std"):
        find_checkpoint(str(tmp_path))
