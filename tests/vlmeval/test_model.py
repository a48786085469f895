"""What the model makes of VLMEvalKit's messages."""

import pandas as pd
import pytest
from PIL import Image

from vico_eval.engine.requests import ImageInput
from vico_eval.engine.tile_limits import tile_limit, total_tile_limit
from vico_eval.errors import ConfigError
from vico_eval.suites import load_benchmarks


def picture(path, size=(896, 448)):
    Image.new("RGB", size, "red").save(path)
    return str(path)


def prepared(model, message, dataset):
    return model._engine.preprocessor(model._request(message, dataset))


def test_a_video_is_frames_of_one_tile_each(open_model, tmp_path):
    from vlmeval.dataset import VideoMME

    frames = [picture(tmp_path / f"{number}.jpg") for number in range(8)]

    class Frames:
        dataset_name = "Video-MME"

        def build_prompt(self, line, video_llm):
            assert not video_llm
            words = [{"type": "text", "value": text} for text in (VideoMME.SYS, VideoMME.FRAMES_TMPL_NOSUB)]
            shown = [{"type": "image", "value": path} for path in frames]
            return [words[0], *shown, words[1], {"type": "text", "value": f"Question: {line['question']}\nAnswer:"}]

    model = open_model("Video-MME_8frame", None)
    message = model.build_prompt(pd.Series({"index": 3, "question": "What?"}), dataset=Frames())
    asked = prepared(model, message, "Video-MME")
    assert asked.key == "Video-MME_8frame/none/3"
    assert asked.num_pieces == 8
    assert "Frame-1: <img></img>\nFrame-2: <img></img>\n" in asked.text
    assert "Frame-8: <img></img>\n\nThese are the frames of a video." in asked.text
    assert "Image-" not in asked.text
    assert "Question: What?\nAnswer with the option's letter" in asked.text


@pytest.mark.parametrize(("is_video", "grids"), [(True, ((1, 1, 1),) * 2), (False, ((2, 2, 5),) * 2)])
def test_pictures_have_the_named_grid_and_frames_one_tile(open_model, tmp_path, is_video, grids):
    path = picture(tmp_path / "a.jpg")
    message = [{"type": "text", "value": "What?", "document": "a/none/1", "is_video": is_video}]
    message += [{"type": "image", "value": path}] * 2
    assert prepared(open_model("BLINK", None, tiles="2x2"), message, "BLINK").grids == grids


def test_of_a_videos_frames_eight_are_kept_as_pictures(open_model, tmp_path):
    model = open_model("Video-MME_64frame", None)
    path = picture(tmp_path / "frame.jpg", (56, 56))
    for is_video, expected in ((True, [3, 11, 19, 27, 35, 42, 50, 58]), (False, list(range(64)))):
        message = [{"type": "text", "value": "What?", "document": "a/none/1", "is_video": is_video}]
        message += [{"type": "image", "value": path}] * 64
        (asked,) = model._request(message, "Video-MME").load().messages
        images = [part for part in asked.content if isinstance(part, ImageInput)]
        assert [number for number, image in enumerate(images) if image.is_previewed] == expected


def test_marks_in_a_question_stay_words(open_model, tmp_path):
    model = open_model("POPE", None)
    message = [
        {"type": "text", "value": "What does <image>\n mean?", "document": "POPE/none/1", "is_video": False},
        {"type": "image", "value": picture(tmp_path / "a.png")},
    ]
    assert "<img></img>\nWhat does <image>\n mean?" in prepared(model, message, "POPE").text


def test_the_first_picture_of_mmmu_is_enlarged(open_model, tmp_path):
    # A little more than a tile fills one; twice its side fills four, and a thumbnail.
    model = open_model("MMMU_DEV_VAL", None)
    side = model._engine.preprocessor.prompting.settings.tile_size * 21 // 20
    path = picture(tmp_path / "a.png", (side, side))
    message = [
        {"type": "text", "value": "What?", "document": "MMMU_DEV_VAL/dev/1", "is_video": False},
        {"type": "image", "value": path},
        {"type": "image", "value": path},
    ]
    tiles = prepared(model, message, "MMMU_DEV_VAL").piece_image.tolist()
    assert (tiles.count(0), tiles.count(1)) == (5, 1)


def test_data_sets_have_the_tile_limits_that_vlmevalkit_gives_internvl(open_model):
    model = open_model("POPE", None)
    names = {entry.vlmevalkit.dataset for entry in load_benchmarks().values() if entry.vlmevalkit is not None}
    for name in names - {"Video-MME_64frame"}:
        model.set_max_num(name)
        assert (tile_limit(name), total_tile_limit(name)) == (model.max_num, model.total_max_num), name


def test_a_message_that_names_no_document_is_refused(open_model):
    model = open_model("MMESCI", None)
    with pytest.raises(ConfigError, match="without naming its documents"):
        model.generate([{"type": "text", "value": "What?"}], dataset="MMESCI")
    assert "MMESCI" in str(model.failure)


def test_conversations_are_refused_and_not_answered_with_words_of_failure(open_model):
    model = open_model("MMDU", None)
    with pytest.raises(ConfigError, match="several rounds"):
        model.chat([{"role": "user", "content": "Hello"}], dataset="MMDU")
