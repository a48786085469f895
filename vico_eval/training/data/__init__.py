"""Training conversations with images and videos: their sources, their preparation and their order.

A corpus consists of one or more of the following:

- a **meta file** of InternVL's training code: a JSON object that maps the name of each data set to `annotation` (a
  JSONL file), `root` (the folder that its paths are relative to), `repeat_time` (2 uses every line twice, 0.5 a random
  half, 1.5 every line and a random half again; 1 by default), `data_augment` (whether to degrade tiles with JPEG
  compression), `max_dynamic_patch` (tiles shared by a sample's images, without thumbnails) and `length` (ignored);
- such a **JSONL file**. A line is an object with `conversations`, a list of `{"from": "human" | "gpt" | "system",
  "value": text}`; `image`, a path or a list of paths; and `video`, a video file or a folder of frames or a list of
  them, with `clip` ([from, to] in seconds). `width` and `height` (`width_list` and `height_list` for several images),
  or `length` in tokens, only serve to estimate its length. The placeholders `<image>` and `<video>` in a human's text
  mark where the media go. Other tools' names are accepted too: `messages`, `role` ("user", "assistant") and
  `content`, `images` and `img`, `videos`, `start` and `end` for a clip, and `system` beside the turns;
- a **data set** of the `datasets` library, from the hub or from a local file or folder. It has a column `messages` of
  `{"role": "user" | "assistant" | "system", "content": text or parts}`, and a column `images` with the images in the
  order of their placeholders. A part is `{"type": "text", "text": text}`, `{"type": "image"}` or `{"type": "video"}`,
  and may hold its own medium as `image`, `video` or `path`. Parts are laid out as at inference. A user's text may
  contain `<image>` and `<video>` as above.

    {"id": 7, "image": "cat.png", "width": 640, "height": 480,
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]}

A file that is not in JSON Lines format (such as a JSON array) is rejected when it is opened. Ignored keys are listed
once at the start, with their counts.

An unusable sample is skipped, counted and named. Its place in the step stays empty, so that the other samples keep
theirs. A sample is unusable if it has missing or broken media, more or fewer placeholders than media of a kind, two
keys with conflicting values, an unknown role, an empty answer or a last turn that is not the assistant's, or if it is
too long.

Source: `internvl/train/internvl_chat_finetune.py` and `dataset.py` of the code released with InternVL 2.5, 3 and 3.5.
Differs from the released code:

- a share of a data set is drawn at random (in the released code: its first lines), once, independent of the run's seed;
- images or videos without any placeholder go before the first human text, one per line, after a system message; if a
  later turn has a placeholder, they are not put there. Placeholders in an answer or a system message are plain text;
- more placeholders than media of their kind make a sample corrupt (in the released code they stay as text), including
  `<image>` in a sample that has only a video. A corrupt sample is not replaced by a random other one, and one that is
  too long is skipped instead of truncated;
- a clip of a folder of frames, which has no time stamps, makes a sample corrupt (in the released code it is ignored);
- with `video_frames: null` a video has the frames and labels of inference; by default it has a random number of random
  frames with the label `Frame-1: `, as in the released code (`videos.py`);
- text that spells control tokens is tokenised as plain text, as at inference. An answer's leading space is dropped,
  because its tokens could merge with the line break before it;
- the sequence ends with the token that ends the last turn, so the line break after it is not trained on.
"""
