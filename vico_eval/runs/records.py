"""The former home of what `vico_eval.runs.schema` declares."""

from vico_eval.runs.schema import RECORD_NAME as RECORD_NAME
from vico_eval.runs.schema import RunRecord as RunRecord
from vico_eval.runs.schema import TokenAccount as TokenAccount
