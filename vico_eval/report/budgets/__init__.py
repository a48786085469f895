"""Rows at several visual-token budgets: each row's budget, and the smallest budget that retains a given score."""
