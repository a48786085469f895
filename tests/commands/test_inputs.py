import os
from dataclasses import replace

import pytest

from vico_eval import paths
from vico_eval.commands.work.inputs import cell_inputs, find_inputs, fingerprint, local_checkpoints
from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.errors import CheckpointError


def planned(*checkpoints):
    return PlannedRun(
        name="n",
        system="s",
        title="t",
        folder=paths.models_dir(),
        cells=(),
        launcher=(),
        arguments=(),
        checkpoints=checkpoints,
    )


def test_only_the_checkpoints_of_the_chosen_rows_are_asked_for():
    folders = local_checkpoints([planned("vico-tiny-base"), planned("vico-tiny-base", "vico-tiny")], "train")
    assert list(folders) == ["vico-tiny-base", "vico-tiny"]


def test_a_hub_id_has_no_folder_and_a_folder_is_its_own(tmp_path):
    assert local_checkpoints([planned("OpenGVLab/InternVL3_5-8B", str(tmp_path))], None) == {str(tmp_path): tmp_path}


def test_a_checkpoint_that_is_not_trained_yet_comes_with_the_command_that_trains_it():
    with pytest.raises(CheckpointError, match=r"no finished checkpoint tiny-x\. Train it \(`vico-eval train x`\)"):
        local_checkpoints([planned("vico-tiny-base"), planned("tiny-x")], "vico-eval train x")


def test_a_run_depends_on_its_own_checkpoints_and_on_those_of_the_run_that_it_draws_on(tmp_path):
    for name in ("base", "vico"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    base, vico = str(tmp_path / "base"), str(tmp_path / "vico")
    runs = [replace(planned(base), name="vanilla"), replace(planned(vico), name="vico")]
    runs.append(replace(planned(base), name="pool", after="vico"))

    def checkpoints(planned_runs):
        return find_inputs(planned_runs, local_checkpoints(planned_runs, None), [], tmp_path).checkpoints

    before = checkpoints(runs)
    assert checkpoints(runs[:1]) == {"vanilla": before["vanilla"]}  # further rows change nothing
    (tmp_path / "vico" / "config.json").write_text("trained longer")
    after = checkpoints(runs)
    assert [name for name in before if before[name] != after[name]] == ["vico", "pool"]


def test_a_cell_depends_on_the_files_of_its_own_tasks(tmp_path):
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "task.yaml").write_text(f"task: {name}_task\ntest_split: test\n")
        (tmp_path / name / "utils.py").write_text("1")
    (tmp_path / "group.yaml").write_text("group: ours_changed\ntask:\n  - task: ours_task\n")
    cells = [
        Cell(benchmark="Ours", tasks=("ours_changed",), results=("ours_task",)),
        Cell(benchmark="Other", tasks=("other_task",), results=("other_task",)),
        Cell(benchmark="Packaged", tasks=("docvqa_val",), results=("docvqa_val",)),
    ]
    before = cell_inputs(cells, tmp_path)
    (tmp_path / "ours" / "utils.py").write_text("2")
    (tmp_path / "other" / "README.md").write_text("for people")
    after = cell_inputs(cells, tmp_path)
    assert [name for name in before if before[name] != after[name]] == ["Ours"]


def test_the_fingerprint_sees_names_and_bytes_but_no_caches(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = fingerprint([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("2")
    assert fingerprint([tmp_path]) == before
    (tmp_path / "a.py").write_text("2")
    changed = fingerprint([tmp_path])
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, fingerprint([tmp_path])}) == 3


def test_a_checkpoint_that_is_copied_is_the_same_and_one_of_equal_size_and_time_is_not(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1234")
    before, state = fingerprint([weights]), weights.stat()
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert fingerprint([weights]) == before
    weights.write_bytes(b"4321")
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fingerprint([weights]) != before
