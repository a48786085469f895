"""The model classes that lmms-eval loads, by their names in `vico_eval.harnesses.lmms_eval.manifests`."""

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

    The variant names the parts of InternVL-X that run, which must be all that the checkpoint has.
    """

    kind = INTERNVL

    @classmethod
    def engine_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as for every model, with a method in place of the variant."""
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
    """Create the model class for a name, so that new methods and kinds of checkpoints need no class here."""
    method, kind = split_model(name) or (None, INTERNVL)
    if method != COMBINED and method not in kind.methods:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    own = {"kind": kind, "method_name": None if method == COMBINED else method, "__module__": __name__}
    return type(name, (CompressedModel,), own)
