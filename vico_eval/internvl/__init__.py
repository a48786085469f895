"""The model: tiles in, visual tokens out, and a decoder. Knows no compression method by name."""
