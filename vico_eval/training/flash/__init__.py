"""ViCO training of real InternVL checkpoints."""
