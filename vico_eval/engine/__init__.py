"""The engine, which turns requests into answers: media, prompts, batching, generation and token accounts."""
