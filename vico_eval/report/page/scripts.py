"""Write values as scripts for the page.

They are ASCII with <, > and & escaped, so that no value can end a script or start a comment.
"""

import json
import math


def as_script(name: str, value: object) -> bytes:
    """A script in ASCII that registers `value` under `name` with the page."""
    return f"vicoPage.register({as_json(name)}, {as_json(value)});\n".encode("ascii")


def as_json(value: object) -> str:
    """The value as ASCII JSON that is safe inside a script."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def known(value: float) -> float | None:
    """The number for JSON, rounded to four decimals; None for NaN and infinities."""
    return round(float(value), 4) if math.isfinite(value) else None
