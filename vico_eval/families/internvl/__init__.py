"""InternVL 2 to 3.5, Flash and InternVL-X: tiles in, visual tokens out."""
