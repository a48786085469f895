"""Evaluation harnesses: thin translations to the engine's requests and back, and readers of what they leave."""
