"""Decoding by vLLM, in this process or by servers: prompts go in as embeddings, tokens come out."""
