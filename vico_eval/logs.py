"""The log of a run, lmms-eval's own: what it says of files, failures and answers is written out, never obeyed."""

from typing import TYPE_CHECKING

import loguru

from vico_eval.plain_text import printable

if TYPE_CHECKING:
    from loguru import Record


def _write_out(record: "Record") -> None:
    record["message"] = printable(record["message"])


logger = loguru.logger.patch(_write_out)
