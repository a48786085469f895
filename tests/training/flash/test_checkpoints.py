"""Which checkpoints stay."""

import json
import math

import pytest

from vico_eval.training.flash.checkpoints import Checkpoints
from vico_eval.training.flash.config import Saving


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_a_loss_that_nobody_knows_is_never_the_best(tmp_path, unknown):
    checkpoints = Checkpoints(tmp_path, Saving(keep_best=1), {})
    for step, held_out in enumerate((unknown, 2.0, unknown, 1.0, unknown, 3.0, unknown)):
        checkpoints.path(step).mkdir()
        checkpoints.finish(step, held_out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000003", "step-0000005", "step-0000006"]


def test_a_folder_without_progress_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, Saving(), {})
    for step in (1, 2):
        checkpoints.path(step).mkdir()
    checkpoints.finish(1, 0.5)
    assert [path.name for path in checkpoints.path(1).iterdir()] == ["progress.json"]
    checkpoints.path(2).mkdir()
    (checkpoints.path(2) / "progress.json.unfinished").write_text(json.dumps({"step": 2})[:5])
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 1
