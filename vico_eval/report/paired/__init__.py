"""Rows paired by document: draws of their scores, tests of no difference, and which are best."""
