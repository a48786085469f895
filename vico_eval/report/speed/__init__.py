"""Measured speed as tables, ViCO's Table 4 among them."""
