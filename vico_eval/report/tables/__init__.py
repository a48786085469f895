"""Tables of measured numbers, and the forms in which they are written."""
