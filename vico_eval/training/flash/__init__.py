"""ViCO's training for checkpoints of any size: consistency (stage 1), then the router (stage 2).

Source: ViCO (arXiv 2510.12793), section 3. The built-in small models have stages of their own in `vico_eval.training`.
"""
