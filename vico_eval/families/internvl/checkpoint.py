"""From a folder, a built-in name or a hub id to a model and its tokenizer, without remote code.

The weights' names and shapes are checked before and after loading: what is missing, unexpected or of another shape is
an error that names it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from vico_eval.errors import BAD_INPUT, CheckpointError, ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig, from_checkpoint_config
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.internlm2 import FUSED, fused_problems
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.processor_files import apply_processor_files
from vico_eval.families.internvl.prompts import IMAGE_TOKEN
from vico_eval.families.internvl.tokenizers import UNLOADABLE, read_tokenizer
from vico_eval.families.internvl.weight_digest import weights_digest
from vico_eval.families.internvl.weight_files import (
    INDEX,
    MAX_NAMED,
    SINGLE,
    find_weights,
    is_pickled,
    named,
    shapes_of,
)
from vico_eval.families.internvl.weight_names import expert_problems
from vico_eval.families.placement import check_attention, check_device, check_device_map, torch_dtype
from vico_eval.methods.interface import ModelFacts
from vico_eval.paths import is_folder, models_dir, user_path

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")

ANSWERING_FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model"),
)
"""What of a checkpoint, besides its weights, may decide an answer."""

M = TypeVar("M", bound=PreTrainedModel)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk whose files are complete."""

    name: str
    """As the user gave it."""

    folder: Path

    config: VicoInternVLConfig

    weights: dict[str, Path]
    """File of every tensor, by the tensor's name in the checkpoint."""

    @property
    def facts(self) -> ModelFacts:
        """What parts of a method may know of it."""
        return facts_of(self.config, self.name)

    @property
    def dtype(self) -> torch.dtype | None:
        """That its weights are kept in, where its configuration says."""
        dtype = self.config.dtype
        return getattr(torch, dtype) if isinstance(dtype, str) else dtype

    def identity(self) -> dict[str, str]:
        """Name, folder and a digest over all weights, the tokenizer and the configuration.

        The weights count tensor by tensor (`weights_digest`). Digests that older versions wrote are hex digits alone:
        they are over `config.json` and both ends of the weight files, and agree with none of these.
        """
        digest = sha256()
        for name in ANSWERING_FILES:
            file = self.folder / name
            if file.is_file():
                digest.update(f"{name} {sha256(file.read_bytes()).hexdigest()}\n".encode())
        digest.update(weights_digest(set(self.weights.values())).encode())
        return {"name": self.name, "path": str(self.folder), "sha256": f"tensors:{digest.hexdigest()}"}


def find_checkpoint(pretrained: str | Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Look at a checkpoint's files without loading weights.

    Args:
        pretrained: a folder, a built-in name (`vico-tiny`, `vico-tiny-base`) or a hub id, which is downloaded.
        allow_pickle: where there are no safetensors, read `.bin` files, as plain tensors only (`weights_only`).

    Raises:
        CheckpointError: no such folder, no network for a hub id, half a checkpoint, or another architecture.
    """
    pretrained = str(pretrained)
    folder = _locate(pretrained, allow_pickle=allow_pickle)
    _read_config(folder, frozenset())  # before a word about weights: a folder of another kind has none of ours
    weights = find_weights(folder, allow_pickle=allow_pickle)
    return Checkpoint(name=pretrained, folder=folder, config=_read_config(folder, frozenset(weights)), weights=weights)


def _read_config(folder: Path, tensor_names: frozenset[str]) -> VicoInternVLConfig:
    if (folder / ADAPTER_CONFIG_NAME).exists():
        # Where PEFT is installed, transformers puts it on the weights unsaid, and no digest of them knows of it.
        raise CheckpointError(
            f"{folder} holds {ADAPTER_CONFIG_NAME}, an adapter (LoRA); expected weights that are complete without one. "
            "Merge it into them (PEFT's merge_and_unload, then save_pretrained) and give that folder, or move "
            "adapter_config.json and the adapter's weights elsewhere."
        )
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{folder} is no checkpoint: it holds no config.json. Expected config.json, tokenizer files and "
            f"{SINGLE} (or {INDEX} and its shards)."
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except BAD_INPUT as error:
        raise CheckpointError(f"{file} can't be read as JSON: {error}. Download it again.") from error
    try:
        config = from_checkpoint_config(values, tensor_names)
        apply_processor_files(folder, config, is_hf=values["model_type"] == "internvl")
        return config
    except UNLOADABLE as error:
        raise CheckpointError(f"{file} is no complete configuration: {error!r}. Download it again.") from error


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer.

    Raises:
        CheckpointError: no tokenizer files, or a vocabulary without `<IMG_CONTEXT>`.
    """
    if not any((checkpoint.folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"{checkpoint.folder} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, or "
            "tokenizer.model. Copy them and tokenizer_config.json from the same InternVL release."
        )
    tokenizer = read_tokenizer(checkpoint.folder, checkpoint.config)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_token_id is None or image_token_id == tokenizer.unk_token_id:
        raise CheckpointError(
            f"the tokenizer in {checkpoint.folder} has no {IMAGE_TOKEN} token. Copy the tokenizer files (with "
            "added_tokens.json) from the same InternVL release."
        )
    return tokenizer


def check_tokenizer_fits(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if the tokenizer has ids that the checkpoint's embedding has no row for."""
    rows = checkpoint.config.text_config.vocab_size
    num_ids = max(tokenizer.get_vocab().values()) + 1
    if num_ids > rows:
        raise CheckpointError(
            f"the tokenizer in {checkpoint.folder} has {num_ids} ids and the model's embedding {rows} rows; a token "
            "beyond them can't be read. Copy the tokenizer files from the same release as config.json."
        )


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str = "sdpa",
    model_class: type[VicoInternVL] = VicoInternVL,
) -> VicoInternVL:
    """Load the weights, in evaluation mode.

    Args:
        checkpoint: from `find_checkpoint`.
        dtype: "auto" (the checkpoint's own), "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", "cuda:1", ...; None leaves the model on the CPU or to `device_map`.
        device_map: transformers' and accelerate's ("auto", "balanced", a dict); instead of `device`.
        attn_implementation: attention kernel of encoder and decoder.
        model_class: of the model.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped weights, named.
        ConfigError: a device that is not there, an unknown dtype or attention kernel, `device` with `device_map`.
    """
    if device is not None and device_map is not None:
        raise ConfigError("got both device and device_map; give one: device_map places the parts itself.")
    check_device(device)
    check_device_map(device_map)
    computed_in = torch_dtype(dtype)
    check_attention(
        attn_implementation,
        is_on_cpu=device_map is None and torch.device(device or "cpu").type == "cpu",
        dtype=checkpoint.config.dtype if computed_in == "auto" else computed_in,
    )
    refuse_wrong_stacks(checkpoint)
    model = load_weights(
        model_class,
        checkpoint,
        dtype=computed_in,
        # Every weight goes straight from its file to the device: processes that share a host would fill its memory.
        device_map=device_map if device is None else {"": torch.device(device)},
        attn_implementation=attn_implementation,
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def load_weights(model_class: type[M], checkpoint: Checkpoint, *, attn_implementation: str, **options: Any) -> M:
    """A model of a class with the weights that a checkpoint has for it.

    Args:
        model_class: made with the checkpoint's configuration.
        checkpoint: from `find_checkpoint`.
        attn_implementation: attention kernel, one that can run here.
        **options: further ones of `from_pretrained` (dtype, device_map), or of the class.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped weights, named.
        ConfigError: an attention kernel that can't be loaded.
    """
    try:
        loaded: Any = model_class.from_pretrained(
            checkpoint.folder,
            config=checkpoint.config,
            attn_implementation=attn_implementation,
            use_safetensors=not any(map(is_pickled, checkpoint.weights.values())),
            weights_only=True,
            ignore_mismatched_sizes=True,  # so that all of them can be named below
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=True,
            **options,
        )
    except ImportError as error:  # flash-attn is there and can't be loaded
        raise ConfigError(f"attn_implementation={attn_implementation!r} can't be used here: {error}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} can't be read: {error}. Download them again."
        ) from error
    model: M = loaded[0]
    _refuse_wrong_weights(checkpoint, loaded[1])
    return model


def _locate(pretrained: str, *, allow_pickle: bool) -> Path:
    path = user_path(pretrained)
    if pretrained.strip() and is_folder(path):
        return path.resolve()
    builtin = models_dir() / pretrained
    if is_folder(builtin) and (builtin / "config.json").is_file():
        return builtin
    if path.is_absolute() or pretrained.startswith((".", "~")) or pretrained.count("/") != 1:
        known = sorted(entry.parent.name for entry in models_dir().glob("*/config.json"))
        raise CheckpointError(
            f"no checkpoint {pretrained!r}: it is no folder, no hub id (owner/name) and none of the built-in ones "
            f"({', '.join(known) or 'none is installed'})."
        )
    try:
        # An architecture that is not supported is refused before gigabytes are on their way.
        looked_at = snapshot_download(pretrained, allow_patterns=["config.json", ADAPTER_CONFIG_NAME])
        _read_config(Path(looked_at), frozenset())
        folder = Path(snapshot_download(pretrained, allow_patterns=HUB_FILES))
        if allow_pickle and not list(folder.glob("*.safetensors")):
            snapshot_download(pretrained, allow_patterns=["*.bin"])
        return folder
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{pretrained!r} is not in the local hub cache and can't be downloaded: no network, or HF_HUB_OFFLINE is "
            "set. Connect, or download it elsewhere and give its folder."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"the hub did not give {pretrained!r}: {error}. Check the name, and log in if it is private."
        ) from error


def refuse_wrong_stacks(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError for experts, or fused q, k, v of InternLM2, of another number or shape than the config's.

    Loading stacks the former, which lie one by one, and splits the latter: behind it nothing can be named.
    """
    files = {file for name, file in checkpoint.weights.items() if ".experts." in name or FUSED in name}
    shapes = {name: shape for file in files for name, shape in shapes_of(file).items()}
    text_config = checkpoint.config.text_config
    problems = expert_problems(shapes, text_config) + fused_problems(shapes, text_config)
    if problems:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} do not fit its config.json: {named(problems, '; ')}. "
            "Use weights and config of the same checkpoint."
        )


def _refuse_wrong_weights(checkpoint: Checkpoint, info: dict[str, Any]) -> None:
    problems = []
    if info["missing_keys"]:
        problems.append(f"missing: {named(info['missing_keys'])}")
    if info["unexpected_keys"]:
        problems.append(f"unexpected: {named(info['unexpected_keys'])}")
    for name, found, expected in info["mismatched_keys"]:
        problems.append(f"{name} has shape {list(found)}, expected {list(expected)}")
    if info.get("error_msgs"):
        problems.append("; ".join(info["error_msgs"]))
    if problems:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} do not fit its config.json: {'; '.join(problems[:MAX_NAMED])}. "
            "Names are those of this package's modules. Use weights and config of the same checkpoint."
        )
