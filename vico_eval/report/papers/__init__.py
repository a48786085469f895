"""The papers' printed numbers: their tables, an audit of them, and their rows below measured ones."""
