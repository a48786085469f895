"""Steps, gradients, health and progress: the loop of every training."""
