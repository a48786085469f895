"""The small InternVL-X rows."""
