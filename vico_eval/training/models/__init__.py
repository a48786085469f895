"""The policy in training and its frozen reference."""
