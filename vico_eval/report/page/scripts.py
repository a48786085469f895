"""Values as the page's scripts hold them.

They are written in ASCII, with <, > and & escaped, so that nothing in them can end a script or begin a comment.
"""

import json
import math


def as_script(name: str, value: object) -> bytes:
    """A script, in ASCII, by which the page gets `value` under `name`."""
    return f"vicoPage.register({as_json(name)}, {as_json(value)});\n".encode("ascii")


def as_json(value: object) -> str:
    """The value in ASCII, safe inside a script."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def known(value: float) -> float | None:
    """A number as JSON has it: None for NaN and infinities."""
    return round(float(value), 4) if math.isfinite(value) else None
