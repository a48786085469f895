"""ViCO's training for checkpoints of any size: consistency (stage 1), then the router (stage 2).

`stages` runs both. `loop` trains them and the built-in small models (`small`), `saving` writes checkpoints and the
finished weights, and `data` reads and prepares the training samples.

Source: ViCO (arXiv 2510.12793), section 3.
"""
