"""Decoding by vLLM: our embedded prompts in, its tokens out, in this process or by servers."""
