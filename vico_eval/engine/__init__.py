"""Requests in, answers out: media, prompts, batches, generation and the account of every token."""
