"""The model classes that lmms-eval asks for, by the names of `vico_eval.harnesses.lmms_eval.manifests`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vico_eval.engine.settings import EngineSettings
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.harnesses.lmms_eval.adapter import CompressedModel
from vico_eval.harnesses.lmms_eval.internvl_x import check_names_every_part, method_of
from vico_eval.harnesses.lmms_eval.kinds import COMBINED, INTERNVL, split_model
from vico_eval.harnesses.lmms_eval.manifests import INTERNVL_X
from vico_eval.methods.arguments import typed


class InternVLX(CompressedModel):
    """`--model internvl_x --model_args pretrained=...,variant=rvtc+pvtc`.

    The variant says which of InternVL-X's parts run, and names all that the checkpoint holds.
    """

    kind = INTERNVL

    @classmethod
    def engine_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """As for every model, with a method instead of the variant that names all parts of the checkpoint."""
        if "method" in arguments:
            raise ConfigError(f"--model {INTERNVL_X} takes variant= and no method=; --model {cls.kind.combined} does.")
        others = {name: value for name, value in arguments.items() if name != "variant"}
        variant = arguments.get("variant")
        method = method_of(variant)
        if "pretrained" in others:
            asked = {name: value for name, value in others.items() if name in ("pretrained", "allow_pickle")}
            settings = typed(EngineSettings, asked)
            check_names_every_part(variant, find_checkpoint(settings.pretrained, allow_pickle=settings.allow_pickle))
        return super().engine_arguments({**others, "method": method})


def __getattr__(name: str) -> type[CompressedModel]:
    """The model class of a name, so that neither a new method nor a new kind of checkpoint needs a class here."""
    method, kind = split_model(name) or (None, INTERNVL)
    if method != COMBINED and method not in kind.methods:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    own = {"kind": kind, "method_name": None if method == COMBINED else method, "__module__": __name__}
    return type(name, (CompressedModel,), own)
