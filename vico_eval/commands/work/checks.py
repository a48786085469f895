"""Checks of a table's runs before the first one starts: devices, checkpoints and model arguments.

Each lmms-eval process makes the same checks, but one after the other and after seconds of loading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vico_eval.commands.work.plan import PlannedRun
from vico_eval.engine.settings import VLLM, EngineSettings
from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.harnesses.lmms_eval.internvl_x import method_of
from vico_eval.harnesses.lmms_eval.kinds import split_model
from vico_eval.paths import is_folder, user_path

if TYPE_CHECKING:
    from vico_eval.families.family import FamilyCheckpoint

OF_THE_ADAPTER = frozenset(("record_dir", "resume", "keep_going", "previews", "variant", "gpus_per_process"))
"""Model arguments that belong neither to the engine nor to a method."""

CUTTING = ("max_tiles", "total_max_tiles", "min_pixels", "max_pixels", "num_frames", "fps", "tiles")


def check_folders(names: Iterable[str]) -> dict[str, FamilyCheckpoint]:
    """Check checkpoints that can only be folders. A hub id is looked up when it is loaded.

    Returns:
        The checkpoints on this machine, by name.

    Raises:
        CheckpointError: a folder is missing or has no complete checkpoint.
    """
    from vico_eval.families.registry import family_of  # loads torch and transformers

    found = {}
    for name in names:
        path = user_path(name)
        can_be_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.is_file()
        if is_folder(path) or "/" not in name:
            found[name] = family_of(name).find(name, allow_pickle=False)
        elif not can_be_hub_id:
            raise CheckpointError(
                f"--checkpoint names {name}, which is not a folder. Expected a folder with a checkpoint, a hub id "
                "(owner/name), or a size."
            )
    return found


def check_device(device: str) -> None:
    """Raise ConfigError if `--device` doesn't exist on this machine."""
    from vico_eval.families.placement import check_device as check

    try:
        check(device)
    except ConfigError as error:
        raise ConfigError(f"--device got {device!r}: {error}") from error


def check_models(runs: Sequence[PlannedRun], checkpoints: Mapping[str, FamilyCheckpoint]) -> None:
    """Check that every run's model accepts its arguments, including `--model-args`, and supports its checkpoint.

    Args:
        runs: the runs of a table.
        checkpoints: the checkpoints on this machine, by name.

    Raises:
        ConfigError: a row's model has no such argument or rejects its value; the message names the row.
        CheckpointError: a checkpoint lacks parts that a row's method needs.
    """
    for run in runs:
        _check_model(run, checkpoints)


def refusals(runs: Sequence[PlannedRun]) -> dict[str, str]:
    """Return why models reject runs' arguments, by name of the rejected runs."""
    checkpoints = check_folders(dict.fromkeys(name for run in runs for name in run.checkpoints))
    refused = {}
    for run in runs:
        try:
            _check_model(run, checkpoints)
        except ConfigError as error:
            refused[run.name] = str(error)
    return refused


def _check_model(run: PlannedRun, checkpoints: Mapping[str, FamilyCheckpoint]) -> None:
    from vico_eval.engine.decode.opening import check_can_decode
    from vico_eval.engine.loading import check_limits, check_tiles, split_arguments
    from vico_eval.engine.preprocess_settings import PreprocessSettings
    from vico_eval.families.registry import family_of
    from vico_eval.methods import registry
    from vico_eval.methods.arguments import typed

    given = {**run.model_args, **run.more_args}
    arguments = {name: value for name, value in given.items() if name not in OF_THE_ADAPTER}
    try:
        name = _method(run)
        engine, own = split_arguments(name, arguments)
        settings = typed(EngineSettings, engine)
        cutting = {name: getattr(settings, name) for name in CUTTING}
        PreprocessSettings(**{name: value for name, value in cutting.items() if value is not None})
        method = registry.build(name, own)
        check_tiles(settings.tiles, method.parts)
        if settings.engine == VLLM:
            family = family_of(settings.pretrained) if settings.pretrained in checkpoints else None
            check_can_decode(settings, method, family)
    except ConfigError as error:
        raise ConfigError(f"row {run.name} can't be run with these arguments: {error}") from error
    if settings.pretrained in checkpoints:
        check_limits(settings, checkpoints[settings.pretrained].facts)
    if "ratio_from" in own:  # it is measured by a run that may not exist yet
        return
    for part in method.parts:
        name = settings.flash_from if part.needs_donor and settings.flash_from else settings.pretrained
        if name in checkpoints:
            part.check(checkpoints[name].facts)


def _method(run: PlannedRun) -> str:
    """Return the method of a run's model (`vico_eval.harnesses.lmms_eval.manifests`)."""
    if run.model == "internvl_x":
        return method_of(str(run.model_args.get("variant")))
    named = split_model(run.model)
    return str(run.model_args.get("method", run.model if named is None else named[0]))
