"""Evaluation harnesses: thin translations to the engine's requests and back."""
