"""`vico-eval route`: the tiles of an image that the router compresses, as a picture and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vico_eval.commands.arguments import parse_arguments
from vico_eval.commands.output import check_writable, message_console, print_json, print_lines
from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.media import load_image
from vico_eval.engine.requests import ImageInput, Message, Request
from vico_eval.errors import ConfigError, OutputError
from vico_eval.methods import registry
from vico_eval.methods.interface import ConnectorPart, Part
from vico_eval.report.figures.routing import RoutedImage, draw_routing, write_png


def draw_routes(
    images: Sequence[Path], *, checkpoint: str, method: str, model_args: str, out: Path, as_json: bool = False
) -> None:
    """Draw each image with the router's decisions into `out`, and print them.

    Args:
        images: image files; `page.png` becomes `<out>/page-route.png`.
        checkpoint: a folder, a hub id or a built-in checkpoint, with a router.
        method: name of a method with a router, or several joined by `+`.
        model_args: further arguments of engine and method, `k=v,...`.
        out: folder for the pictures; created if missing.
        as_json: print the numbers as JSON.

    Raises:
        ConfigError: an argument is unknown, or the method has no router.
        CheckpointError: the checkpoint is missing or has no router.
        MediaError: an image can't be read; raised before the model is loaded.
        OutputError: the pictures can't be written, or two would have the same name.
    """
    arguments = parse_arguments(model_args, "--model-args")
    for name, option in (("pretrained", "--checkpoint"), ("method", "--method")):
        if name in arguments:
            raise ConfigError(f"--model-args has {name}, which {option} sets; leave it out.")
    _check_method(method)
    for path in images:
        load_image(path)
    pictures = _pictures(images, out)
    check_writable(out)
    engine = open_engine({"pretrained": checkpoint, "method": method, **arguments}, show_progress=False).engine
    records = []
    for path, picture in zip(images, pictures, strict=True):
        routed = route_image(engine, path)
        records.append(_record(routed, path, picture))
        if not as_json:
            print_lines("\n".join(_lines(routed)))
        write_png(draw_routing(routed), picture)
        message_console().print(f"Drawn: {picture}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(records)


def route_image(engine: Engine, path: Path) -> RoutedImage:
    """Return an image's tiles, scores and decisions, as in a request with this image only.

    Args:
        engine: an engine with a method that has a router.
        path: an image file.

    Raises:
        MediaError: the image can't be read.
    """
    request = Request(key=str(path), messages=(Message("user", (ImageInput(path),)),))
    routing = engine.routing(request)
    assert routing.p_compress is not None, "a method that asks a router has scores"
    width, height = load_image(path).size
    (picture,) = routing.pictures
    return RoutedImage(
        title=path.name,
        method=engine.method.name,
        width=width,
        height=height,
        columns=picture.columns,
        rows=picture.rows,
        tiles=picture.pieces,
        p_compress=routing.p_compress,
        compressed=routing.compressed,
        visual_tokens=routing.visual_tokens,
        visual_tokens_uncompressed=routing.visual_tokens_uncompressed,
    )


def _check_method(method: str) -> None:
    if not any(map(_asks_a_router, _parts(method))):
        known = ", ".join(name for name in registry.method_names() if any(map(_asks_a_router, _parts(name))))
        raise ConfigError(f"method {method!r} has no router, so there is nothing to draw. Methods with one: {known}.")


def _parts(method: str) -> list[type[Part]]:
    return [registry.load(name.strip()) for name in method.split("+")]


def _asks_a_router(part: type[Part]) -> bool:
    return issubclass(part, ConnectorPart) and part.scored_by is not ConnectorPart.scored_by


def _pictures(images: Sequence[Path], out: Path) -> list[Path]:
    """Return each image's output file."""
    pictures = [out / f"{path.stem}-route.png" for path in images]
    if twice := sorted({str(picture) for picture in pictures if pictures.count(picture) > 1}):
        raise OutputError(f"Several images would be drawn into {', '.join(twice)}. Draw them one after the other.")
    if taken := {path.resolve() for path in images} & {picture.resolve() for picture in pictures}:
        raise OutputError(f"{', '.join(map(str, taken))} would be drawn over. Pass another --out.")
    return pictures


def _record(routed: RoutedImage, path: Path, picture: Path) -> dict[str, Any]:
    """Return an image's result for JSON."""
    return {
        "image": str(path),
        "picture": str(picture),
        "method": routed.method,
        "width": routed.width,
        "height": routed.height,
        "columns": routed.columns,
        "rows": routed.rows,
        "tiles": [
            {"p_compress": score, "compressed": compressed, "visual_tokens": tokens}
            for score, compressed, tokens in zip(
                routed.p_compress, routed.compressed, routed.visual_tokens, strict=True
            )
        ],
        "visual_tokens_uncompressed": routed.visual_tokens_uncompressed,
    }


def _lines(routed: RoutedImage) -> list[str]:
    """Return the lines of an image, its tiles, and the totals."""
    lines = [f"{routed.title}: {routed.width} x {routed.height} px, {routed.columns} x {routed.rows} tiles"]
    lines += ["      row  column  p_compress"]
    for place, (score, compressed) in enumerate(zip(routed.p_compress, routed.compressed, strict=True)):
        row, column = divmod(place, routed.columns)
        name = f"{row + 1:>9}  {column + 1:>6}" if row < routed.rows else f"{'thumbnail':>9}  {'':>6}"
        lines.append(f"{name}  {score:>10.4f}  {'compressed' if compressed else 'kept'}")
    return [*lines, f"    total  {routed.totals}"]
