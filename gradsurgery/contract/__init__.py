"""What the author of a strategy imports."""
