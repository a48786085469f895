"""InternVL-X's rows by the paper's names: a `variant` is a combination of methods.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vico_eval.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from vico_eval.families.internvl.checkpoint import Checkpoint

METHODS = {"rvtc": "rvtc_edge", "pvtc": "pvtc", "lvtc": "lvtc"}
"""Method of each part, in the order in which they are applied. For RVTC, it is the rule of the released code."""

FULL = "full"


def parts_of(variant: str | None) -> tuple[str, ...]:
    """Return the parts that a variant names, in the order in which they are applied.

    Args:
        variant: one or more of rvtc, pvtc, lvtc joined by `+`, in any order, or `full` for all.

    Raises:
        ConfigError: no part is named, or one is unknown or named twice.
    """
    names = list(METHODS) if variant == FULL else str(variant or "").split("+")
    if not set(names) <= set(METHODS) or len(set(names)) < len(names):
        raise ConfigError(
            f"internvl_x got variant={variant!r}; expected {FULL}, or one or several of {', '.join(METHODS)} joined by "
            "+, such as variant=rvtc+pvtc."
        )
    return tuple(name for name in METHODS if name in names)


def method_of(variant: str | None) -> str:
    """Return the combination of methods of a variant. Raises ConfigError; see `parts_of`."""
    return "+".join(METHODS[part] for part in parts_of(variant))


def check_names_every_part(variant: str | None, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if the checkpoint has a part that the variant doesn't name, because its row would be
    mislabelled.

    A part that the checkpoint lacks is reported by that part's method.
    """
    named = parts_of(variant)
    if left_out := [part for part in METHODS if part in checkpoint.config.parts and part not in named]:
        wanted = "+".join(part for part in METHODS if part in {*named, *left_out})
        raise CheckpointError(
            f"checkpoint {checkpoint.name!r} holds {' and '.join(map(str.upper, left_out))}, which variant={variant} "
            f"does not name. Pass variant={wanted}, or load a checkpoint without it."
        )
