"""The training loop: steps, gradients, checks for finite numbers, and progress."""
