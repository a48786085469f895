"""Comparisons of rows paired by document: bootstrap draws, tests of no difference, and the best rows."""
