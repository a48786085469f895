"""The small ViCO model, before and after its two ViCO stages."""
