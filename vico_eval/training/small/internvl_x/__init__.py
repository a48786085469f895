"""Training of the small InternVL-X models."""
