"""Decoder layers whose tokens change on the way, and their caches; no family's own."""
