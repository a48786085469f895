"""Rows at several budgets of visual tokens: which budget a row has, and how few tokens a method can do with."""
