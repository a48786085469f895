"""The run's log, shared with lmms-eval. Control characters in file names, failures and answers are escaped."""

from typing import TYPE_CHECKING

import loguru

from vico_eval.plain_text import printable

if TYPE_CHECKING:
    from loguru import Record


def _write_out(record: "Record") -> None:
    record["message"] = printable(record["message"])


logger = loguru.logger.patch(_write_out)
