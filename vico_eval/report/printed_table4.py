"""ViCO's Table 4 as printed: which prompts it has, and the speed-up of each."""

from vico_eval.errors import ReportError
from vico_eval.report.published import published_csv, published_dir, read_numbers

TEXT_TOKENS = (64, 512)
COMPRESSIONS = (0, 25, 50, 75)
"""Percent of the visual tokens that are removed; none comes first."""

Prompt = tuple[int, int]
"""Text tokens and compression."""


def printed_table4() -> dict[str, dict[Prompt, str]]:
    """The printed speed-ups by model, in the paper's order, and prompt.

    Raises:
        ReportError: the file is malformed, or has another prompt.
    """
    path = published_csv(published_dir(), "vico", 4)
    prompts = {
        (f"10 patches + {text} text tokens", f"token compression {share}%"): (text, share)
        for text in TEXT_TOKENS
        for share in COMPRESSIONS
    }
    printed: dict[str, dict[Prompt, str]] = {}
    for number in read_numbers(path):
        prompt = prompts.get((number.variant, number.setting))
        if prompt is None:
            raise ReportError(f"{path} has {number.variant}, {number.setting}, which is no prompt of Table 4.")
        printed.setdefault(number.model, {})[prompt] = number.value
    return printed
