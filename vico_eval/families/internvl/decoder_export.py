"""Export of a checkpoint's decoder to a folder that vLLM, SGLang and transformers load without this package.

No model is loaded: weights are copied from the checkpoint's files to shards, with one shard in memory.

Differs: rotary embeddings with dynamic NTK are written as plain ones. They are the same up to
        `max_position_embeddings`, beyond which the engine rejects prompts; vLLM would accept longer prompts, for which
        it has no positions.
"""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from platformdirs import user_cache_path
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vico_eval.errors import CheckpointError, OutputError
from vico_eval.families.checkpoint import check_tokenizer_fits
from vico_eval.families.internvl.checkpoint import Checkpoint, load_tokenizer
from vico_eval.families.internvl.decoder_weights import check_weights, decoder_weights
from vico_eval.families.internvl.plain_tokenizer import plain_tokenizer
from vico_eval.families.internvl.prompts import get_template
from vico_eval.families.weight_files import INDEX, SINGLE
from vico_eval.files import NoLocks, check_locks, check_unused, lock, new_folder, to_disk, unfinished, write_json
from vico_eval.logs import logger

EXPORT = "export.json"
"""The file that describes the folder's source; written last."""

FORMAT = 1
"""Version of the format; a cache replaces exports of other versions."""

SHARD_BYTES = 2_000_000_000
SILENT_S = 5
"""Seconds after which progress is shown."""

_OF_THE_WRITER = {"transformers_version", "architectures", "dtype", "id2label", "label2id"}


def exported_decoder(checkpoint: Checkpoint, cache: Path | None = None) -> Path:
    """Return the folder of a checkpoint's decoder in a cache, which is written if missing.

    If several processes need it at once, one writes and the others wait.

    Args:
        checkpoint: from `find_checkpoint`.
        cache: folder of exports; None for the user's own cache.

    Raises:
        CheckpointError: see `export_decoder`.
        OutputError: the cache can't be written, or is on a file system without locks.
    """
    cache = cache or user_cache_path("vico-eval") / "decoders"
    folder = cache / _digest(checkpoint).rpartition(":")[2][:32]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock_file = cache / f"{folder.name}.lock"
        check_locks(lock_file)
        held = lock(lock_file)
        try:
            held.acquire(timeout=0)
        except Timeout:
            logger.info(f"another process exports the decoder of {checkpoint.name}; waiting for it")
            held.acquire()
    except NoLocks as error:
        raise OutputError(
            f"The decoder of {checkpoint.name} can't be kept: {error} XDG_CACHE_HOME sets where it is."
        ) from error
    except OSError as error:
        raise OutputError(
            f"The decoder of {checkpoint.name} can't be kept in {cache}: {error}. Make it writable, or set "
            "XDG_CACHE_HOME to a folder with room, on a file system with locks."
        ) from error
    try:
        if not is_export(folder, checkpoint):
            for torn in (folder, *unfinished(folder)):
                shutil.rmtree(torn, ignore_errors=True)
            export_decoder(checkpoint, folder)
        return folder
    finally:
        held.release()


def export_decoder(checkpoint: Checkpoint, out: Path, *, shard_bytes: int = SHARD_BYTES) -> bool:
    """Write a checkpoint's decoder with its tokenizer; dtypes stay.

    Args:
        checkpoint: from `find_checkpoint`.
        out: a new or empty folder, which appears when everything is written.
        shard_bytes: maximum size of a weight file, and approximate memory needed.

    Returns:
        Whether it was written; False if `out` is a finished export of the same checkpoint.

    Raises:
        CheckpointError: weights don't match, the tokenizer can't be loaded, or the decoder contains parts.
        OutputError: `out` has other content or can't be written.
    """
    out = out.expanduser().resolve()
    _refuse_inner_parts(checkpoint)
    if is_export(out, checkpoint):
        return False
    check_unused(out)
    num_weights = sum(torch.Size(shape).numel() for shape in check_weights(checkpoint).values())
    tokenizer = load_tokenizer(checkpoint)
    check_tokenizer_fits(tokenizer, checkpoint)
    with new_folder(out) as partial:
        _write_weights(checkpoint, _Shards(partial, shard_bytes), num_weights)
        _write_settings(checkpoint, tokenizer, partial)
        _write_marker(checkpoint, partial)
    return True


def is_export(folder: Path, checkpoint: Checkpoint) -> bool:
    """Return whether a folder is a finished export of a checkpoint, with all files at their recorded sizes."""
    try:
        marker = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in marker["files"]}
        is_whole = marker["format"] == FORMAT and marker["files"] == sizes
        return bool(is_whole and marker["sha256"] == _digest(checkpoint))
    except (OSError, ValueError, TypeError, KeyError):
        return False


def not_in_export(checkpoint: Checkpoint) -> list[str]:
    """Return sentences about what the export changes or loses of a checkpoint's decoder; empty if nothing."""
    config = checkpoint.config.text_config
    if not _is_stretched(config):
        return []
    return [
        f"positions beyond max_position_embeddings ({config.max_position_embeddings}) are not stretched by dynamic NTK."
    ]


def _digest(checkpoint: Checkpoint) -> str:
    return checkpoint.identity()["sha256"]


def _refuse_inner_parts(checkpoint: Checkpoint) -> None:
    if parts := sorted(checkpoint.facts.trained_in):
        raise CheckpointError(
            f"{checkpoint.name} was trained with {', '.join(parts)} inside its decoder, which no plain decoder "
            "computes. Export a checkpoint without it, or evaluate this one with the transformers engine."
        )


def _write_weights(checkpoint: Checkpoint, shards: _Shards, num_weights: int) -> None:
    title = f"decoder of {checkpoint.name}"
    with tqdm(total=num_weights, unit=" weights", unit_scale=True, delay=SILENT_S, desc=title) as bar:
        for name, tensor in decoder_weights(checkpoint):
            shards.add(name, tensor)
            bar.update(tensor.numel())
    shards.finish()


class _Shards:
    """Writes tensors in order to files of limited size, or of one tensor."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.waiting: dict[str, Tensor] = {}
        self.written: list[list[str]] = []
        self.num_bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        if self.waiting and sum(held.nbytes for held in self.waiting.values()) + tensor.nbytes > self.max_bytes:
            self._write()
        # A copy, because safetensors rejects shared memory within a file.
        self.waiting[name] = tensor.clone(memory_format=torch.contiguous_format)
        self.num_bytes += tensor.nbytes

    def finish(self) -> None:
        """Name the files by their number, and write an index if there are several."""
        self._write()
        if len(self.written) == 1:
            self._unnamed(1).rename(self.folder / SINGLE)
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self.written, start=1):
            file = f"model-{number:05d}-of-{len(self.written):05d}.safetensors"
            self._unnamed(number).rename(self.folder / file)
            weight_map |= dict.fromkeys(names, file)
        write_json(self.folder / INDEX, {"metadata": {"total_size": self.num_bytes}, "weight_map": weight_map})

    def _write(self) -> None:
        self.written.append([*self.waiting])
        file = self._unnamed(len(self.written))
        save_file(self.waiting, file, metadata={"format": "pt"})
        to_disk(file)
        self.waiting.clear()

    def _unnamed(self, number: int) -> Path:
        return self.folder / f"{number}.safetensors"


def _write_settings(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    config = plain_config(checkpoint)
    write_json(folder / "config.json", json.loads(config.to_json_string()) | _early_words(config))
    plain_tokenizer(tokenizer).save_pretrained(folder)
    end_of_turn = tokenizer.convert_tokens_to_ids(get_template(checkpoint.config.template).stop)
    ends = {end_of_turn, tokenizer.eos_token_id} - {None, tokenizer.unk_token_id}
    # Without explicit values, engines would use the release's suggested temperature and penalties.
    GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=sorted(ends), pad_token_id=config.pad_token_id
    ).save_pretrained(folder)


def plain_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """Return the decoder's configuration with the fields of transformers' class, without additions by releases."""
    text_config = checkpoint.config.text_config
    declared = {field.name for field in fields(text_config)} - _OF_THE_WRITER
    values: dict[str, Any] = {name: getattr(text_config, name) for name in declared}
    if _is_stretched(text_config):
        values["rope_parameters"] = {"rope_type": "default", "rope_theta": text_config.rope_parameters["rope_theta"]}
    config = type(text_config)(**deepcopy(values))
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
    config.dtype = checkpoint.dtype
    return config


def _early_words(config: PreTrainedConfig) -> dict[str, Any]:
    """Return fields for transformers before version 5, which would otherwise silently use defaults."""
    rope = dict(config.rope_parameters)
    theta = rope.pop("rope_theta")
    scaling = {} if rope["rope_type"] == "default" else {"rope_scaling": {**rope, "type": rope["rope_type"]}}
    stored = {} if config.dtype is None else {"torch_dtype": str(config.dtype).removeprefix("torch.")}
    renamed = {name: getattr(config, name) for name in config.attribute_map}
    return {"rope_theta": theta, **scaling, **stored, **renamed}


def _is_stretched(config: PreTrainedConfig) -> bool:
    return (config.rope_parameters or {}).get("rope_type") == "dynamic"


def _write_marker(checkpoint: Checkpoint, folder: Path) -> None:
    for file in folder.iterdir():
        to_disk(file)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    marker = {"format": FORMAT, "checkpoint": checkpoint.name, "sha256": _digest(checkpoint), "files": sizes}
    write_json(folder / EXPORT, marker)
