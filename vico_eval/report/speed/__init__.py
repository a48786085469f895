"""Tables of measured speed, including ViCO's Table 4."""
