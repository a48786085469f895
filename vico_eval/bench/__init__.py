"""What a method costs and saves in operations."""
