r"""Escape text for literal output by LaTeX, as ASCII, for any class and engine and any place in a table.

Accented letters become commands. Other characters are set directly in XeTeX and LuaTeX, and are replaced by their code,
such as U+4E2D, elsewhere, since pdfTeX would fail on them.
"""

import unicodedata
from itertools import pairwise

from vico_eval.plain_text import one_line

_GREEK = (
    *("alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu"),
    *("nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
)

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"$\sim$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # babel redefines this character in some languages.
    '"': r"{\char34}",
    "`": r"\`{}",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "†": r"$\dagger$",
    "−": "$-$",
    "±": r"$\pm$",
    "✓": r"$\surd$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "µ": r"$\mu$",
    "°": r"$^{\circ}$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
} | {letter: rf"$\{name}$" for letter, name in zip("αβγδεζηθκλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", _GREEK, strict=True)}

# Accents available in every LaTeX font encoding, by combining mark.
_ACCENTS = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0327\u0331",
        "`'^~=u.\"rHvdcb",
        strict=True,
    )
)

# Adjacent characters, the first from the left set and the second from the right set, would form a ligature.
_JOINING = (("-–—", "-–—"), ("'’”", "'’”"), ("‘“", "‘“"), (",", ","), ("?!", "‘“"))

# At the start of a table's line, these would be parsed as an argument of the previous row end.
_ARGUMENTS = "[*"


def escape_latex(text: str) -> str:
    """`text` escaped for literal output by LaTeX; line breaks become spaces."""
    line = unicodedata.normalize("NFC", one_line(text))
    if not line:
        return ""
    first = f"{{{line[0]}}}" if line[0] in _ARGUMENTS else _command(line[0])
    parts = [first]
    for before, character in pairwise(line):
        if any(before in left and character in right for left, right in _JOINING):
            parts.append("{}")
        parts.append(_command(character))
    return "".join(parts)


def _command(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    if character.isascii():
        return character
    decomposed = unicodedata.normalize("NFD", character)
    base, marks = decomposed[0], decomposed[1:]
    if base.isascii() and base.isalpha() and marks and all(mark in _ACCENTS for mark in marks):
        accented = rf"\{base}" if base in "ij" and marks[0] not in "\u0323\u0327\u0331" else base
        for mark in marks:
            accented = rf"\{_ACCENTS[mark]}{{{accented}}}"
        return accented
    code = ord(character)
    return rf"{{\ifdefined\Umathchar\symbol{{{code}}}\else U+{code:04X}\fi}}"
