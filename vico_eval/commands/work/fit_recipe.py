"""`vico-eval fit-recipe`: search of FitPrune's recipes for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vico_eval.commands.arguments import parse_arguments, parse_names
from vico_eval.commands.output import check_writable, message_console, print_lines
from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, Request, Text
from vico_eval.errors import ConfigError
from vico_eval.files import write_text
from vico_eval.methods.interface import DecoderPart
from vico_eval.methods.shared.fitprune_recipes import RecipeFile, SearchedRecipe
from vico_eval.methods.shared.fitprune_search import Measure, Trial, Widths, best_of, search
from vico_eval.training.data.reading.conversations import Conversation, Reading
from vico_eval.training.data.reading.sources import JsonLines

PREFILL = GenerationSettings(max_new_tokens=1)


def fit_recipe(
    samples: Path, *, checkpoint: str, reductions: str, root: Path, limit: int, model_args: str, out: Path
) -> None:
    """Search a recipe for each reduction on the first samples of a file, print the recipes, and write them for
    `recipe=`.

    Args:
        samples: JSON lines in InternVL's format, with images and questions.
        checkpoint: a folder, a hub id or a built-in one.
        reductions: shares of the operations on visual tokens to save, in (0, 1), separated by commas.
        root: folder that image paths are relative to.
        limit: number of samples.
        model_args: further arguments of the engine, `k=v,...`.
        out: the file to write, FILE.json.

    Raises:
        ConfigError: an argument is invalid, a sample has no image, or no recipe reaches a reduction.
        CheckpointError: the checkpoint is missing or incomplete.
        CorruptSample: a sample is unusable.
        DocumentError: a sample's image can't be read, or the model can't process it.
        OutputError: the file can't be written.
    """
    wanted = _reductions(reductions)
    arguments = parse_arguments(model_args, "--model-args")
    for name, option in (("pretrained", "--checkpoint"), ("method", "no option"), ("engine", "no option")):
        if name in arguments:
            raise ConfigError(f"--model-args has {name}, which {option} sets; leave it out.")
    if out.suffix != ".json":
        raise ConfigError(f"--out got {out}; expected a file that ends in .json, as recipe= takes it.")
    lines = JsonLines(samples, Reading(root=root))
    requests = [_question(lines[number]) for number in range(min(limit, len(lines)))]
    check_writable(out.parent)
    opened = open_engine({"pretrained": checkpoint, **arguments}, show_progress=False)
    identity = opened.checkpoint.identity()
    file = search_recipes(opened.engine, requests, wanted, checkpoint=identity["name"], sha256=identity["sha256"])
    for recipe in file.recipes:
        left = file.num_visual - sum(recipe.leave)
        print_lines(f"{recipe.reduction:g}: {left} of {file.num_visual} are left, {' '.join(map(str, recipe.leave))}")
    write_text(out, file.model_dump_json(indent=2) + "\n")
    message_console().print(f"Written: {out}", markup=False, highlight=False, soft_wrap=True)


def search_recipes(
    engine: Engine, requests: Sequence[Request], reductions: Sequence[float], *, checkpoint: str, sha256: str
) -> RecipeFile:
    """Search a recipe for each reduction.

    Args:
        engine: an engine without a decoder method.
        requests: requests with images.
        reductions: shares of the operations on visual tokens to save.
        checkpoint: name of the engine's checkpoint.
        sha256: digest of its files.

    Raises:
        ConfigError: no recipe reaches a reduction.
        DocumentError: a request can't be processed.
    """
    measure = Measure()
    whole = _entering(engine, requests, measure)

    @cache
    def entering(tolerance: float) -> list[tuple[int, ...]]:
        message_console().print(f"tolerance {tolerance:g}", highlight=False)
        return _entering(engine, requests, Trial(tolerance, measure.received))

    widths = widths_of(engine.model.language_model.config)
    recipes = [
        SearchedRecipe(reduction=reduction, leave=best_of(search(entering, reduction, widths), reduction).leave)
        for reduction in reductions
    ]
    return RecipeFile(
        checkpoint=checkpoint,
        sha256=sha256,
        num_layers=len(whole[0]),
        num_visual=sum(counts[0] for counts in whole) // len(whole),
        num_samples=len(whole),
        recipes=tuple(recipes),
    )


def widths_of(config: Any) -> Widths:
    """Return the widths in a decoder's configuration; with a mixture of experts, a token passes only some experts."""
    mlp = config.intermediate_size
    if getattr(config, "num_experts_per_tok", None):
        mlp = config.moe_intermediate_size * config.num_experts_per_tok
    return Widths(model=config.hidden_size, mlp=mlp)


def _entering(engine: Engine, requests: Sequence[Request], part: DecoderPart) -> list[tuple[int, ...]]:
    """Return the number of visual tokens that enter each layer, [requests][layers]."""
    engine.model.use_decoder_part(part)
    return [answer.account.visual_tokens_per_layer for answer in engine.answer(requests)]


def _question(conversation: Conversation) -> Request:
    """Return everything before the last answer."""
    if all(isinstance(part, Text) for message in conversation.messages for part in message.content):
        raise ConfigError(f"{conversation.key} has no image; each sample needs one, followed by a question.")
    return Request(key=conversation.key, messages=conversation.messages[:-1], generation=PREFILL)


def _reductions(text: str) -> list[float]:
    try:
        reductions = [float(name) for name in parse_names(text, "--reductions")]
    except ValueError:
        reductions = []
    if not reductions or not all(0 < reduction < 1 for reduction in reductions):
        raise ConfigError(f"--reductions got {text!r}; expected shares between 0 and 1, as in 0.4,0.6.")
    return reductions
