"""Answers in lmms-eval's form, with the account for its samples file."""

from __future__ import annotations

from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from vico_eval.runs.schema import TokenAccount


def result_of(text: str, account: TokenAccount) -> GenerationResult:
    """Return lmms-eval's result of an answer, with the account."""
    return GenerationResult(text, AccountedTokens(account))


class AccountedTokens(TokenCounts):  # type: ignore[misc]
    """lmms-eval's token counts, extended by the whole account for its samples file."""

    def __init__(self, account: TokenAccount) -> None:
        super().__init__(
            input_tokens=account.text_tokens + account.visual_tokens, output_tokens=account.generated_tokens
        )
        self.account = account

    def to_dict(self) -> dict[str, Any]:
        """Return lmms-eval's counts, and ours under `account`."""
        return {**super().to_dict(), "account": self.account.to_dict()}
