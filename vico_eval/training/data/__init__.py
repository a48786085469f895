"""Conversations with pictures to train on: where they come from, how they are prepared, and in which order they come.

A corpus is one or several of:

- a **meta file** of InternVL's training code, JSON: a name for each data set, and for each name `annotation` (a JSONL
  file), `root` (what its paths are relative to), `repeat_time` (2 is every line twice, 0.5 a random half, 1.5 both;
  1 by default), `data_augment` (whether tiles are degraded as by JPEG), `max_dynamic_patch` (tiles of an image,
  thumbnail not counted) and `length` (not read);
- such a **JSONL file**. A line is an object with `conversations`, a list of `{"from": "human" | "gpt" | "system",
  "value": words}`; `image`, a path or a list of them, and `video` likewise, a video file or a folder of frames, with
  `clip` ([from, to] in seconds); and, for an estimate of its length only, `width` and `height` (`width_list` and
  `height_list` of several images), or `length` in tokens. `<image>` and `<video>` stand in a human's words where the
  pictures go. Other tools' names are read too: `messages`, `role` ("user", "assistant") and `content`, `images` and
  `img`, `videos`, `start` and `end` for a clip, and `system` beside the turns;
- a **data set** of the `datasets` library, from the hub or a local file or folder: a column `messages` of
  `{"role": "user" | "assistant" | "system", "content": words or parts}`, and a column `images` with the pictures in
  the order of their places. A part is `{"type": "text", "text": words}`, `{"type": "image"}` or `{"type": "video"}`,
  and may hold its own picture as `image`, `video` or `path`. Parts are laid out as at inference; a user's words may
  hold `<image>` and `<video>` as above.

    {"id": 7, "image": "cat.png", "width": 640, "height": 480,
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]}

A file that is not of JSON lines (a JSON array, another tool's file) is refused when it is opened. Keys that nothing is
done with are named once at the start, with how often they occur.

A sample that can't be used is skipped, counted and named, and its place in the step stays empty, so that the others
stay where they are. Such are those with missing or broken media, more or fewer marks than pictures of their kind, two
names that say different things, an unknown role, an empty answer or a last turn that is not the assistant's, and those
that are too long.

Source: `internvl/train/internvl_chat_finetune.py` and `dataset.py` of the code released with InternVL 2.5, 3 and 3.5.
Differs from them:

- a share of a data set is drawn at random (there: its first lines), once, whatever the run's seed;
- images or videos without any mark go before the first human words, a line each, after a system message; they are not
  put there where a later turn has a mark. Marks in an answer or a system message are words;
- marks beyond the pictures of their kind make a sample corrupt (there they stay as words), also `<image>` in a sample
  that has only a video; a corrupt sample is not replaced by a random other one; one that is too long is skipped, not
  cut off;
- a clip of a folder of frames, which has no clock, makes a sample corrupt (there the clip is not read);
- with `video_frames: null` a video gives the frames that inference shows, with its labels; by default a random number
  of random frames, `Frame-1: `, as there (`videos.py`);
- words that spell control tokens are taken apart as at inference; leading space of an answer is dropped, because its
  tokens could merge with the line break before it;
- the token that ends the last turn is the last one: nothing is learnt from the line break behind it.
"""
