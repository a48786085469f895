"""The built-in benchmark: pictures drawn on the fly, a byte-level tokenizer, and fixed test and validation splits."""
