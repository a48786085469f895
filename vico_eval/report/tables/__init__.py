"""Tables of measured numbers, and their output formats."""
