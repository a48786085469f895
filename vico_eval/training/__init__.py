"""ViCO's two training stages, their losses and labels, and the recipe of the built-in small model.

The losses (`consistency`) and labels (`labels`) know nothing of the small model; `tiny` is the recipe that uses them.
"""
