"""The policy in training and the frozen reference beside it."""
