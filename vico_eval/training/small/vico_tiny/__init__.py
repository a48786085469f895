"""The small ViCO model: the stages before and after ViCO's own two."""
