"""The built-in benchmark: images drawn on the fly, a byte-level tokenizer, and fixed test and validation splits."""
